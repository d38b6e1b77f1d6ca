"use strict";
// Save a file that the page has made, under a name that starts with that of the release.
function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${document.querySelector("h1").textContent}_${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
// The page without this script is whole, but its tables cannot be sorted or filtered, and all regions are open.
(() => {
  document.documentElement.classList.add("js");
  const find = (selector, root = document) => [...root.querySelectorAll(selector)];
  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  // Numbers come before texts, and dashes (no value) come last in both directions.
  const keyOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
    return text === "–" || text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (first, second) => {
    if (typeof first === "number" && typeof second === "number") return first - second;
    return String(first).localeCompare(String(second), "en", { numeric: true });
  };

  // A header sorts its column in one direction, then in the other, then back to the order of the release.
  for (const table of find("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headers = [...table.tHead.rows[0].cells];
    if (original.length < 2) continue;
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const orders = ["ascending", "descending"];
        if (column) orders.reverse(); // the largest number first, but names from A to Z
        const order = header.ariaSort ? (header.ariaSort === orders[0] ? orders[1] : "") : orders[0];
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        const rows = [...original];
        if (order) {
          header.setAttribute("aria-sort", order);
          const keys = new Map(rows.map((row) => [row, keyOf(row, column)]));
          const sign = order === "ascending" ? 1 : -1;
          rows.sort((a, b) => {
            const [x, y] = [keys.get(a), keys.get(b)];
            return x === null || y === null ? (x === null) - (y === null) : sign * compare(x, y);
          });
        }
        body.append(...rows);
      });
    });
  }

  // Each table can be saved as it is shown: sorted and filtered, without the pictures in it. Numbers have no commas between
  // thousands, and unknown ones are empty.
  const cellText = (cell) => {
    const text = cell.textContent.trim().replace(/−/g, "-");
    if (text === "–") return "";
    if (/^-?\d{1,3}(,\d{3})+(\.\d+)?$/.test(text)) return text.replace(/,/g, "");
    return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const csvOf = (table) => {
    const rows = [...table.rows].filter((row) => !row.hidden);
    const columns = [...rows[0].cells].map((_, i) => i).filter((i) => !rows.some((row) => row.cells[i].querySelector("svg")));
    return rows.map((row) => `${columns.map((i) => cellText(row.cells[i])).join(",")}\n`).join("");
  };
  for (const table of find("table")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Save as CSV";
    button.addEventListener("click", () => save(`${table.id}.csv`, new Blob([csvOf(table)], { type: "text/csv" })));
    const line = document.createElement("p");
    line.className = "buttons save";
    line.append(button);
    (table.closest(".long") ?? table).after(line);
  }

  document.getElementById("methods-copy").addEventListener("click", (event) => {
    getSelection().selectAllChildren(document.getElementById("methods"));
    event.target.nextElementSibling.textContent = document.execCommand("copy") ? "copied" : "selected: press Ctrl+C";
  });

  for (const input of find("input[data-table]")) {
    const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
    const names = rows.map((row) => find("th", row).map((cell) => cell.textContent).join(" ").toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/);
      rows.forEach((row, i) => (row.hidden = !words.every((word) => names[i].includes(word))));
      const n = rows.filter((row) => !row.hidden).length;
      input.parentElement.querySelector("output").textContent =
        n === rows.length ? `${n} rows` : `${n} of ${rows.length} rows`;
    });
  }

  // The heat map shows one measure at a time.
  const heat = document.getElementById("heat");
  const measures = read("heat-values");
  const heatRows = [...heat.tBodies[0].rows];
  const write = (value, digits) =>
    value === null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
  document.getElementById("heat-measure").addEventListener("change", (event) => {
    const measure = measures[event.target.value];
    heatRows.forEach((row, i) =>
      find("td", row).forEach((cell, j) => {
        const value = measure.values[i][j];
        const share = Math.min(Math.max(value / measure.high, 0), 1);
        cell.textContent = write(value, measure.digits);
        cell.className = value === null ? "s-1" : `s${Math.min(63, Math.floor(64 * share))}`;
      })
    );
    document.getElementById("heat-title").textContent = measure.title + (measure.unit && ` (${measure.unit})`);
    document.getElementById("heat-end").textContent = measure.high.toLocaleString("en");
    heat.caption.firstChild.textContent = `${measure.title} of each region and subject. A region's name leads to its details.`;
  });

  // With many regions, one is open at a time: the chosen one, or that of the address.
  const panels = find(".panel");
  const choice = document.getElementById("region-choice");
  const open = (id) => panels.forEach((panel) => panel.classList.toggle("current", panel.id === id));
  const follow = () => {
    if (!panels.some((panel) => `#${panel.id}` === location.hash)) return;
    open(location.hash.slice(1));
    if (choice) choice.value = location.hash.split("-")[1];
    document.getElementById(location.hash.slice(1)).scrollIntoView();
  };
  open(panels[0].id);
  if (choice) choice.addEventListener("change", () => open(`region-${choice.value}`));
  window.addEventListener("hashchange", follow);
  follow();

  // The navigation marks the section in sight.
  const links = find("nav a");
  const heads = links.map((link) => document.getElementById(link.hash.slice(1)));
  const mark = () => {
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
    const passed = heads.filter((head) => head.getBoundingClientRect().top < 130).length;
    const current = atEnd ? links.length - 1 : passed - 1;
    links.forEach((link, i) => (i === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  // Paper shows what is folded on the screen, except very long tables.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = find("details:not([open])").filter((details) => find("tr", details).length <= 80);
    opened.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
})();
