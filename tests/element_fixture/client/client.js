// Copyright: cae.matrix contributors. GNU General Public License v3.0+ (see LICENSE).
// A tiny client for tests: configuration, language, login. It keeps nothing.
"use strict";

async function json(address, options) {
    const response = await fetch(address, options);
    const body = await response.json();
    if (!response.ok) {
        throw new Error(body.error || response.statusText);
    }
    return body;
}

function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
}

async function start() {
    const page = document.getElementById("matrixchat");
    const config = await json("config.json", { cache: "no-store" });
    const version = await (await fetch("version", { cache: "no-store" })).text();
    const language = (config.setting_defaults || {}).language || "en";
    const words = await json("i18n/" + (await json("i18n/languages.json"))[language]);
    const homeserver = config.default_server_config["m.homeserver"];
    document.documentElement.lang = language;
    document.title = config.brand;

    const user = element("input", { name: "username", autocomplete: "username", placeholder: words.user });
    const password = element("input", { name: "password", type: "password", placeholder: words.password });
    const outcome = element("p", { id: "outcome" });
    const form = element("form", {}, user, password, element("button", { type: "submit" }, words.sign_in));
    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        try {
            const session = await json(homeserver.base_url + "/_matrix/client/v3/login", {
                method: "POST",
                headers: { "Content-Type": "application/json" },
                body: JSON.stringify({
                    type: "m.login.password",
                    identifier: { type: "m.id.user", user: user.value },
                    password: password.value,
                }),
            });
            outcome.textContent = words.welcome + " " + session.user_id;
        } catch (error) {
            outcome.textContent = error.message;
        }
    });
    page.replaceChildren(
        element("h1", {}, config.brand),
        form,
        outcome,
        element("footer", { id: "version" }, homeserver.server_name + " " + version),
    );
}

start().catch((error) => {
    document.getElementById("matrixchat").textContent = "config.json: " + error.message;
});
