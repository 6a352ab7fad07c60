// The page that holds two rows against each other: it chooses and shows, and computes nothing. The data of a table are
// a script beside it (data/KEY.js), as pages that are opened from a file may read no other files.
"use strict";

window.adaptbench = (() => {
  const form = document.getElementById("chooser");
  if (!form) return {};
  const at = (id) => document.getElementById(id);
  const { table, first, second } = form.elements;
  const known = {};
  let asked = location.hash.slice(1).split(",");

  function receive(data) {
    known[data.key] = data;
    if (data.key === table.value) fill();
  }

  function load() {
    at("trouble").hidden = true;
    if (known[table.value]) return fill();
    const script = document.createElement("script");
    script.src = `data/${table.value}.js`;
    script.onerror = () => trouble(`data/${table.value}.js is missing: copy the whole folder of the site`);
    document.head.append(script);
  }

  function trouble(text) {
    at("verdict").hidden = true;
    at("trouble").textContent = text;
    at("trouble").hidden = false;
  }

  function fill() {
    const { rows } = known[table.value];
    for (const [select, place] of [[first, 0], [second, 1]]) {
      select.replaceChildren(...rows.map((row, index) => new Option(row.label, index)));
      const wanted = Number(asked[place + 1]);
      select.value = asked[place + 1] && wanted in rows ? wanted : place;
    }
    asked = [];
    show();
  }

  function show() {
    const data = known[table.value];
    const [i, j] = [Number(first.value), Number(second.value)].sort((a, b) => a - b);
    history.replaceState(null, "", `#${table.value},${first.value},${second.value}`);
    if (i === j) return trouble("These are the same row: choose another one.");
    at("trouble").hidden = true;
    const pair = data.pairs[`${i},${j}`];
    const path = table.selectedOptions[0].dataset.path;
    for (const [id, row] of [["one", data.rows[i]], ["two", data.rows[j]]]) {
      const side = at(id), name = document.createElement("strong"), value = document.createElement("span");
      name.textContent = row.label;
      value.textContent = `${row.value} (n = ${row.seeds})`;
      side.replaceChildren(name, value);
      side.href = `${path}#${row.anchor}`;
    }
    at("gap").textContent = pair.points === undefined ? "–" : (pair.points > 0 ? "+" : "") + pair.points.replace("-", "−");
    at("of").textContent = `${data.of}, in %; ${pair.head}`;
    at("lines").replaceChildren(...pair.lines.map((line) => item("li", line)));
    const most = Math.max(0.01, ...pair.sets.map(([, , gap]) => Math.abs(gap)));
    at("sets").tBodies[0].replaceChildren(...pair.sets.map(([name, text, gap]) => {
      const row = document.createElement("tr"), number = item("td", text), cell = document.createElement("td");
      number.className = "right";
      cell.append(bar(gap / most));
      row.append(item("td", name), number, cell);
      return row;
    }));
    at("verdict").hidden = false;
  }

  function item(tag, text) {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  }

  function bar(share) {
    const space = "http://www.w3.org/2000/svg";
    const made = document.createElementNS(space, "svg"), rect = document.createElementNS(space, "rect");
    for (const [name, value] of [["viewBox", "-100 0 200 10"], ["class", "gapbar"], ["aria-hidden", "true"], ["preserveAspectRatio", "none"]]) {
      made.setAttribute(name, value);
    }
    rect.setAttribute("x", Math.min(0, 100 * share));
    rect.setAttribute("width", Math.abs(100 * share));
    rect.setAttribute("height", 10);
    rect.setAttribute("class", share < 0 ? "less" : "more");
    made.append(rect);
    return made;
  }

  if (Array.from(table.options).some((option) => option.value === asked[0])) table.value = asked[0];
  table.addEventListener("change", load);
  first.addEventListener("change", show);
  second.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  load();
  return { receive };
})();
