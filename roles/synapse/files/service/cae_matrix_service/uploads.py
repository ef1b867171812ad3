# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps `media_upload_limits` before a file is stored.

Synapse itself asks how much somebody has sent when the file lies on its disk already, and leaves it there: whoever goes
on would fill the disk with files that were refused.
"""

from __future__ import annotations

import logging

from synapse.api.errors import UserLimitExceededError
from synapse.module_api import ModuleApi

logger = logging.getLogger(__name__)


def start(api: ModuleApi) -> None:
    """In the processes that store media."""
    hs = api._hs
    media = hs.config.media
    if not media.can_load_media_repo:
        return
    store = hs.get_datastores().main
    if not (hasattr(media, "media_upload_limits") and hasattr(store, "get_media_uploaded_size_for_user")):
        logger.warning(
            "This Synapse keeps media_upload_limits in another way than expected, nothing was changed: files that it "
            "refuses may stay on the disk. Set synapse_version to the version before."
        )
        return
    of_modules = hs.get_module_api_callbacks().media_repository

    async def is_user_allowed_to_upload_media_of_size(user_id: str, size: int) -> bool:
        limits = await of_modules.get_media_upload_limits_for_user(user_id)
        for limit in media.media_upload_limits if limits is None else limits:
            sent = await store.get_media_uploaded_size_for_user(user_id=user_id, time_period_ms=limit.time_period_ms)
            if sent + size > limit.max_bytes:
                logger.info("Refused: a file of %d bytes of %s, who has sent %d bytes lately", size, user_id, sent)
                raise UserLimitExceededError(
                    403,
                    "Vous avez envoyé beaucoup de fichiers ces derniers temps, réessayez plus tard / "
                    "You have sent many files lately, try again later",
                    info_uri=limit.info_uri or media.media_upload_limit_fallback_info_uri,
                    can_upgrade=limit.can_upgrade,
                )
        return True

    api.register_media_repository_callbacks(
        is_user_allowed_to_upload_media_of_size=is_user_allowed_to_upload_media_of_size
    )
