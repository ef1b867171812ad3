# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""See the package."""

import sys

from cae_matrix_rehearsal import main

sys.exit(main(sys.argv[1:]))
