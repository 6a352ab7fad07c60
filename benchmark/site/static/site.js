// What pages do beside being read: sort, filter, open rows, copy. Without this file everything is visible and in the
// order of the tables. Nothing is fetched, and no text becomes markup.
"use strict";

document.documentElement.classList.add("js");

const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

// --- sorting: a click is descending for numbers, then ascending, then the order of the table -----------------------

function sortable(table) {
  const heads = all("thead th", table);
  const original = all(":scope > tbody", table);
  heads.forEach((head, place) => {
    const button = head.querySelector("button.sort");
    if (button) button.addEventListener("click", () => sort(table, heads, head, place, original));
  });
}

function key(body, place) {
  const text = body.rows[0].cells[place].dataset.order;
  if (text === "") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function sort(table, heads, head, place, original) {
  const keys = new Map(original.map((body) => [body, key(body, place)]));
  const numeric = [...keys.values()].every((value) => value === null || typeof value === "number");
  const steps = numeric ? ["descending", "ascending", null] : ["ascending", "descending", null];
  const now = steps[(steps.indexOf(head.getAttribute("aria-sort")) + 1) % steps.length];
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  let bodies = [...original];
  if (now) {
    head.setAttribute("aria-sort", now);
    const sign = now === "ascending" ? 1 : -1;
    bodies.sort((one, two) => {
      const a = keys.get(one), b = keys.get(two);
      if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
      if (typeof a === "number" && typeof b === "number") return sign * (a - b);
      return sign * String(a).localeCompare(String(b), "en", { numeric: true });
    });
  }
  table.append(...bodies);
}

// --- filters: a form names the items that it filters; a search must find all of its words --------------------------

function filters(form) {
  const name = form.dataset.filters;
  const items = all(`[data-item="${name}"]`);
  const texts = new Map(items.map((item) => [item, item.dataset.text.toLowerCase()]));
  const apply = () => {
    const asked = Object.fromEntries(new FormData(form));
    const words = (asked.text || "").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const fits = Object.entries(asked).every(
        ([field, value]) => field === "text" || !value || (item.dataset[field] || "").split("|").includes(value));
      const visible = fits && words.every((word) => texts.get(item).includes(word));
      item.hidden = !visible;
      shown += visible;
    }
    for (const section of all("[data-section]")) {
      const left = all(`[data-item="${name}"]`, section).filter((item) => !item.hidden).length;
      const count = section.querySelector(`[data-count="${name}"]`);
      if (count) count.textContent = left;
      const none = section.querySelector(".none");
      if (none) none.hidden = left > 0;
    }
    for (const count of all(`[data-count="${name}"][data-of]`)) {
      count.textContent = shown === items.length ? `${shown} rows` : `${shown} of ${count.dataset.of} rows`;
    }
    for (const none of all(`[data-none="${name}"]`)) none.hidden = shown > 0;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply(); // a browser that comes back fills in what was asked for before
}

// --- details of a row ----------------------------------------------------------------------------------------------

function open(body, wanted) {
  body.classList.toggle("opened", wanted);
  body.querySelector("button.open").setAttribute("aria-expanded", String(wanted));
}

function rows() {
  const bodies = all("tbody[data-item]").filter((body) => body.querySelector("button.open"));
  for (const body of bodies) {
    body.querySelector("button.open").addEventListener("click", () => open(body, !body.classList.contains("opened")));
  }
  for (const button of all("[data-open-all]")) {
    button.addEventListener("click", () => {
      const wanted = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(wanted));
      button.textContent = wanted ? "Close all" : "Open all";
      bodies.forEach((body) => open(body, wanted));
    });
  }
  const asked = document.getElementById(location.hash.slice(1));
  if (asked && bodies.includes(asked)) {
    open(asked, true);
    asked.scrollIntoView({ block: "center" });
  }
}

// --- copying -------------------------------------------------------------------------------------------------------

function copying(button) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.nextElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  all("table[data-sortable]").forEach(sortable);
  all("form[data-filters]").forEach(filters);
  rows();
  all("button.copy").forEach(copying);
});
