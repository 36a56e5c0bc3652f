// Lists the pages and constants that have every word of what is typed, names before descriptions.
"use strict";

const field = document.getElementById("search");
const found = document.getElementById("found");

function rank(words, [name, , about]) {
    const lower = name.toLowerCase();
    const all = lower + " " + about.toLowerCase();
    if (!words.every(word => all.includes(word))) return 0;
    if (lower.replace(/\(\d\)$/, "") === words.join(" ")) return 4;
    if (words.every(word => lower.includes(word))) return lower.startsWith(words[0]) ? 3 : 2;
    return 1;
}

function search() {
    // What is pasted from a program has brackets.
    const words = field.value.toLowerCase().replace(/\(.*?\)/g, " ").split(/\s+/).filter(word => word !== "");
    const hits = words.length === 0 ? [] : names
        .map(entry => [rank(words, entry), entry])
        .filter(([value]) => value > 0)
        .sort(([a, x], [b, y]) => b - a || x[0].length - y[0].length || (x[0] < y[0] ? -1 : 1))
        .slice(0, 30);
    found.replaceChildren(...hits.map(([, [name, address, about]]) => {
        const item = document.createElement("li");
        const link = document.createElement("a");
        link.href = address;
        link.textContent = name;
        item.append(link, " ", about);
        return item;
    }));
    if (hits.length === 0 && words.length > 0) {
        const item = document.createElement("li");
        item.textContent = "Nothing found";
        found.append(item);
    }
    found.hidden = words.length === 0;
}

field.addEventListener("input", search);
field.addEventListener("keydown", event => {
    const first = found.querySelector("a");
    if (event.key === "Enter" && first) location.href = first.href;
    if (event.key === "Escape") {
        field.value = "";
        search();
    }
});
document.addEventListener("keydown", event => {
    if (event.key === "/" && document.activeElement !== field) {
        event.preventDefault();
        field.focus();
    }
});
// A search can be linked to: index.html?q=WORDS
const asked = new URLSearchParams(location.search).get("q");
if (asked !== null) {
    field.value = asked;
    search();
}
