// Copyright: cae.matrix contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

/**
 * A module of Element Web. It keeps Element's questions about encryption away from people who take part in no encrypted
 * conversation, and gives everybody a place that says who can read what, and how to change that.
 *
 * Element has no interface for the first part. It is done with what Element leaves on `window`, which may change with
 * any version: on others than these, or where something is missing, this does nothing and says so on the console.
 * It must never throw while Element starts: Element would not start.
 *
 * @typedef {import("@element-hq/element-web-module-api").Api} Api
 * @typedef {{key: string}} Toast
 */

/** Versions of Element Web that this was tried with (make test-element). */
const TRIED = ["1.12.25"];

/** Account data: whether all rooms that the person creates are encrypted from the start. The server obeys it. */
const PREFERENCE = "cae.matrix.encrypt_new_rooms";

/** "Set up recovery", "verify this device", "new login, was it you?": of no use to who has nothing encrypted. */
const TOASTS = /^(setupencryption$|reviewsessions$|unverified_session_)/;

// Element's own numbers of what its page about digital identities is at, and of the view that shows it.
const INTRO = 1;
const FINISHED = 5;
const COMPLETE_SECURITY = 6;

const WORDS = {
    en: {
        title: "Who can read this conversation?",
        pageTitle: "Who can read my conversations?",
        plain: "This conversation is not encrypted.",
        encrypted: "This conversation is end-to-end encrypted: only the people in it can read its messages.",
        whoReads:
            "Conversations are readable by your cooperative's server, and so by the people who run it, unless " +
            "encryption is turned on. Where somebody has their account on another server, that server can read them " +
            "too. What is sent always travels protected over the network.",
        whatItDoes:
            "Encryption is turned on for one conversation at a time. From then on only the people in it can read new " +
            "messages; earlier ones stay as they are. It cannot be turned off again.",
        whatItAsks:
            "It asks something of everybody there: to confirm each of their devices, and to keep a recovery key. " +
            "Whoever loses all of these loses the encrypted messages, and nobody at the cooperative can bring them back.",
        how: "Turn encryption on: open the conversation's settings, then Security & Privacy, then Encryption.",
        notYou: "In this conversation, only its administrators can turn encryption on: ask them.",
        turnOn: "Turn encryption on here…",
        preference: "Encrypt all conversations that I create, from the start",
        preferenceHint: "In all your applications. Conversations that exist already do not change.",
        failed: "This could not be saved. Try again in a moment.",
    },
    fr: {
        title: "Qui peut lire cette conversation ?",
        pageTitle: "Qui peut lire mes conversations ?",
        plain: "Cette conversation n’est pas chiffrée.",
        encrypted:
            "Cette conversation est chiffrée de bout en bout : seules les personnes qui y participent peuvent en lire les " +
            "messages.",
        whoReads:
            "Les conversations peuvent être lues par le serveur de votre coopérative, donc par les personnes qui " +
            "l’administrent, tant que le chiffrement n’est pas activé. Si quelqu’un y participe depuis un autre serveur, " +
            "celui-ci peut aussi les lire. Sur le réseau, tout circule protégé dans tous les cas.",
        whatItDoes:
            "Le chiffrement s’active conversation par conversation. Dès lors, seules les personnes qui y participent " +
            "peuvent lire les nouveaux messages ; les précédents restent comme ils sont. On ne peut plus le désactiver.",
        whatItAsks:
            "Il demande quelque chose à chaque participant : confirmer chacun de ses appareils et garder une clé de " +
            "récupération. Qui perd tout cela perd les messages chiffrés, et personne à la coopérative ne peut les " +
            "retrouver.",
        how:
            "Pour activer le chiffrement : ouvrez les paramètres de la conversation, puis Sécurité et vie privée, puis " +
            "Chiffrement.",
        notYou: "Dans cette conversation, seuls ses administrateurs peuvent activer le chiffrement : demandez-leur.",
        turnOn: "Activer le chiffrement ici…",
        preference: "Chiffrer dès le début toutes les conversations que je crée",
        preferenceHint: "Dans toutes vos applications. Les conversations qui existent déjà ne changent pas.",
        failed: "Ce choix n’a pas pu être enregistré. Réessayez dans un instant.",
    },
};

const warned = new Set();

function warn(why) {
    if (!warned.has(why)) console.warn(`encryption-opt-in: ${why}; Element does as it always does`);
    warned.add(why);
}

/** Waits for Element to make one of its stores, which it does when it first needs it. */
function whenMade(name, methods, then) {
    const check = (store) => {
        const missing = methods.filter((method) => typeof store[method] !== "function");
        if (missing.length) warn(`${name} has no ${missing.join(", ")}`);
        else then(store);
    };
    if (window[name]) {
        check(window[name]);
        return;
    }
    Object.defineProperty(window, name, {
        configurable: true,
        get: () => undefined,
        set(value) {
            Object.defineProperty(window, name, { configurable: true, enumerable: true, writable: true, value });
            check(value);
        },
    });
}

/** Whether the person takes part in an encrypted conversation; undefined as long as that is not known. */
function hasOptedIn() {
    try {
        const client = window.mxMatrixClientPeg.get();
        // Before the first synchronisation, and without connection, the rooms may be incomplete.
        if (!client?.isInitialSyncComplete()) return undefined;
        // With this experiment of Element's, they come little by little.
        if (window.mxSettingsStore.getValue("feature_simplified_sliding_sync")) return true;
        return client.getRooms().some((room) => room.getMyMembership() === "join" && room.hasEncryptionStateEvent());
    } catch (error) {
        warn(`rooms cannot be read (${error})`);
        return true;
    }
}

/** Keeps toasts about encryption until the person takes part in an encrypted conversation, then shows them. */
function holdToastsBack(store) {
    /** @type {Map<string, Toast>} */
    const held = new Map();
    const show = store.addOrReplaceToast.bind(store);
    const dismiss = store.dismissToast.bind(store);
    const reset = store.reset.bind(store);

    const release = () => {
        if (!hasOptedIn()) return;
        window.mxMatrixClientPeg.get().off("sync", release);
        for (const toast of held.values()) show(toast);
        held.clear();
    };
    store.addOrReplaceToast = (toast) => {
        const client = window.mxMatrixClientPeg.get();
        if (!TOASTS.test(toast.key) || !client || hasOptedIn()) {
            held.delete(toast.key);
            show(toast);
        } else {
            held.set(toast.key, toast);
            client.off("sync", release);
            client.on("sync", release);
        }
    };
    store.dismissToast = (key) => {
        held.delete(key);
        dismiss(key);
    };
    store.reset = () => {
        held.clear();
        reset();
    };
}

/** Closes the page about the digital identity, before it shows, for who takes part in no encrypted conversation. */
function skipIdentityPage(store) {
    const decide = () => {
        // The dialog that people open from the settings is driven by the same store, and is theirs to answer.
        if (store.phase !== INTRO || window.matrixChat?.state.view !== COMPLETE_SECURITY) return;
        const optedIn = hasOptedIn();
        if (optedIn === undefined) window.mxMatrixClientPeg.get()?.once("sync", decide);
        if (optedIn !== false) return;
        // What reacts to the end is on the page only after this first update, so it has to be told again.
        store.once("newListener", () =>
            queueMicrotask(() => {
                if (store.phase === FINISHED) store.skipConfirm();
            }),
        );
        store.skipConfirm();
    };
    store.on("update", decide);
}

/** Whether this server can sign a new device in by a QR code, asked as Element asks before it shows one. */
async function canLinkDevices(client) {
    try {
        const { grant_types_supported: grants = [] } = await client.getAuthMetadata();
        const granted = grants.includes("urn:ietf:params:oauth:grant-type:device_code");
        return granted && (await client.doesServerSupportUnstableFeature("org.matrix.msc4108"));
    } catch {
        return false;
    }
}

/**
 * Keeps what only asks or only fails out of sight, by marks on the page that its style looks at: the red dot beside
 * "Encryption" in the settings, until the person takes part in an encrypted conversation, and the ways to a QR code that
 * this server cannot do.
 *
 * @param {Api} api
 */
function keepQuiet(api) {
    const marks = document.documentElement.classList;
    const style = document.createElement("style");
    style.textContent = `
        html:not(.cae_encryption_asked) .mx_UserSettingsDialog .mx_SettingsDialog_tabLabelsAlert::after,
        html:not(.cae_devices_linkable) :is(.mx_SettingsSubsection:has(.mx_LoginWithQRSection), .cae_link_device) { display: none; }`;
    document.head.append(style);

    let asked;
    window.mxDispatcher.register(({ action }) => {
        if (action === "view_user_settings") marks.toggle("cae_encryption_asked", hasOptedIn() !== false);
        const client = window.mxMatrixClientPeg.get();
        if (!client || client === asked) return;
        asked = client;
        marks.remove("cae_devices_linkable");
        canLinkDevices(client).then((can) => client === asked && marks.toggle("cae_devices_linkable", can));
    });
    // The menu's entry has nothing to be known by but its words.
    new MutationObserver(() => {
        const words = api.i18n.translate("user_menu|link_new_device");
        for (const entry of document.querySelectorAll("[role=menuitem]:not(.cae_link_device)")) {
            if (entry.textContent === words) entry.classList.add("cae_link_device");
        }
    }).observe(document.body, { childList: true });
}

/**
 * What people see: the sentences, the way to turn encryption on, and the preference.
 *
 * @param {Api} api
 */
function explain(api) {
    const { createElement: h, useEffect, useState } = window.React;
    const say = (key) => WORDS[api.i18n.language?.startsWith("fr") ? "fr" : "en"][key];
    const paragraph = (text, props) => h("p", { style: { margin: "0 0 12px" }, ...props }, text);

    function Preference() {
        const [data] = useState(
            () => /** @type {any} */ (api.client.accountData.get(PREFERENCE)),
        );
        const [enabled, setEnabled] = useState(data.value?.enabled === true);
        const [state, setState] = useState("");
        useEffect(() => {
            const update = (content) => setEnabled(content?.enabled === true);
            data.watch(update);
            return () => data.unwatch(update);
        }, [data]);
        const change = async (event) => {
            const wanted = event.target.checked;
            setState("busy");
            try {
                await api.client.accountData.set(PREFERENCE, { enabled: wanted });
                setEnabled(wanted);
                setState("");
            } catch (error) {
                console.error("encryption-opt-in: the preference was not saved", error);
                setState("failed");
            }
        };
        return h(
            "div",
            { style: { borderTop: "1px solid var(--cpd-color-border-interactive-secondary)", paddingTop: "16px" } },
            h(
                "label",
                { style: { display: "flex", gap: "12px", alignItems: "center", fontWeight: 600, cursor: "pointer" } },
                h("input", {
                    "type": "checkbox",
                    "role": "switch",
                    "checked": enabled,
                    "disabled": state === "busy",
                    "onChange": change,
                    "aria-describedby": "cae_encryption_hint",
                    "style": { accentColor: "var(--cpd-color-bg-accent-rest)", width: "20px", height: "20px", flex: "none" },
                }),
                say("preference"),
            ),
            h("p", { id: "cae_encryption_hint", style: { margin: "4px 0 0 32px" } }, say("preferenceHint")),
            h(
                "p",
                { role: "status", style: { margin: "4px 0 0 32px", color: "var(--cpd-color-text-critical-primary)" } },
                state === "failed" ? say("failed") : "",
            ),
        );
    }

    /** How to turn encryption on in this room, or in any. */
    function Way({ room, close }) {
        const client = window.mxMatrixClientPeg.get();
        if (!room || !client) return paragraph(say("how"));
        if (room.hasEncryptionStateEvent()) return null;
        if (!room.currentState.mayClientSendStateEvent("m.room.encryption", client)) return paragraph(say("notYou"));
        const open = () => {
            close();
            const tab = { initial_tab_id: "ROOM_SECURITY_TAB", room_id: room.roomId };
            window.mxDispatcher.dispatch({ action: "open_room_settings", ...tab });
        };
        return h(
            "p",
            { style: { margin: "0 0 20px" } },
            h("button", { type: "button", className: "mx_Dialog_nonDialogButton cae_encryption_way", onClick: open }, say("turnOn")),
        );
    }

    function Explanation({ roomId, onCancel }) {
        const room = roomId ? window.mxMatrixClientPeg.get()?.getRoom(roomId) : null;
        return h(
            "div",
            { className: "cae_encryption", style: { maxWidth: "640px", color: "var(--cpd-color-text-primary)" } },
            room && paragraph(h("strong", null, say(room.hasEncryptionStateEvent() ? "encrypted" : "plain"))),
            paragraph(say("whoReads")),
            paragraph(say("whatItDoes")),
            paragraph(say("whatItAsks")),
            h(Way, { room, close: onCancel }),
            h(Preference),
        );
    }

    function Page() {
        return h(
            "main",
            { style: { padding: "48px 32px", overflow: "auto", flex: 1, background: "var(--cpd-color-bg-canvas-default)" } },
            h(
                "div",
                { style: { maxWidth: "640px", margin: "0 auto" } },
                h("h1", { style: { color: "var(--cpd-color-text-primary)" } }, say("pageTitle")),
                h(Explanation),
            ),
        );
    }

    // An eye. A padlock would say something of the room, and Element has its own for that.
    const eye = h(
        "svg",
        { "viewBox": "0 0 24 24", "width": 22, "height": 22, "fill": "currentColor", "aria-hidden": true },
        h("path", {
            fillRule: "evenodd",
            d:
                "M12 5c4.6 0 8.6 2.8 10.4 7-1.8 4.2-5.8 7-10.4 7S3.4 16.2 1.6 12C3.4 7.8 7.4 5 12 5Zm0 2c-3.5 " +
                "0-6.6 1.9-8.2 5 1.6 3.1 4.7 5 8.2 5s6.6-1.9 8.2-5c-1.6-3.1-4.7-5-8.2-5Zm0 1.5a3.5 " +
                "3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7Zm0 2a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3Z",
        }),
    );
    const style = document.createElement("style");
    style.textContent = `
        .cae_encryption_button { display: flex; padding: 6px; border: 0; border-radius: 50%; cursor: pointer;
            background: none; color: var(--cpd-color-icon-secondary); }
        .cae_encryption_button:hover { background: var(--cpd-color-bg-subtle-primary); color: var(--cpd-color-icon-primary); }
        .cae_encryption_way { padding: 10px 24px; border: 0; border-radius: 24px; font: inherit; font-weight: 600; cursor: pointer;
            background: var(--cpd-color-bg-action-primary-rest); color: var(--cpd-color-text-on-solid-primary); }
        .cae_encryption_button:focus-visible, .cae_encryption_way:focus-visible {
            outline: 2px solid var(--cpd-color-border-focused); outline-offset: 1px; }`;
    document.head.append(style);

    api.navigation.registerLocationRenderer("chiffrement", () => h(Page));
    api.extras.addRoomHeaderButtonCallback((roomId) =>
        h(
            "button",
            {
                "key": "cae_encryption",
                "type": "button",
                "className": "cae_encryption_button",
                "title": say("title"),
                "aria-label": say("title"),
                // The header around it opens the room's information.
                "onClick": (event) => {
                    event.stopPropagation();
                    api.openDialog({ title: say("title") }, Explanation, { roomId });
                },
            },
            eye,
        ),
    );
}

export default class EncryptionOptIn {
    // The loader stops Element over a version that does not match; which ones fit is decided below.
    static moduleApiVersion = ">=1.0.0";

    /** @param {Api} api */
    constructor(api) {
        this.api = api;
    }

    async load() {
        try {
            const version = await window.mxPlatformPeg?.get()?.getAppVersion();
            const missing = ["React", "mxMatrixClientPeg", "mxDispatcher"].filter((name) => !window[name]);
            if (!TRIED.includes(version)) warn(`not tried with Element Web ${version}`);
            else if (missing.length) warn(`there is no ${missing.join(", ")}`);
            else {
                explain(this.api);
                keepQuiet(this.api);
                whenMade("mxToastStore", ["addOrReplaceToast", "dismissToast", "reset"], holdToastsBack);
                whenMade("mxSetupEncryptionStore", ["on", "once", "skipConfirm"], skipIdentityPage);
            }
        } catch (error) {
            warn(`failed (${error})`);
        }
    }
}
