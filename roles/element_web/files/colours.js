// Copyright: cae.matrix contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

/**
 * A module of Element Web: the cooperative's colour (custom/colours.css, from element_web_colour). Element's own way, a
 * theme of one's own, only shows to people who choose it. Where a version of Element has other names for its colours, these
 * do nothing.
 */
export default class Colours {
    static moduleApiVersion = ">=1.0.0";

    async load() {
        const link = document.createElement("link");
        link.rel = "stylesheet";
        link.href = new URL("colours.css", import.meta.url);
        document.head.append(link);
    }
}
