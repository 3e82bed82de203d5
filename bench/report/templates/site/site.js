"use strict";
const root = document.documentElement;

function stored(value) {
  try {
    if (value) localStorage.setItem("theme", value);
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

if (["light", "dark"].includes(stored())) root.dataset.theme = stored();

function enableTheme(button) {
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `${button.textContent} theme`); };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    stored(root.dataset.theme);
    name();
  });
  name();
}

// The number at the beginning of a cell; NaN where it holds a state or nothing.
const number = (cell) => (cell && cell.colSpan === 1 ? parseFloat(cell.textContent.trim()) : NaN);
const text = (cell) => (cell ? cell.textContent.trim() : "");

function compare(column, asText, sign) {
  return (a, b) => {
    const [one, other] = [a.cells[column], b.cells[column]];
    if (asText) return sign * text(one).localeCompare(text(other), "en", { numeric: true });
    const [x, y] = [number(one), number(other)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  };
}

// The third click brings the order of the table back.
function enableSort(table) {
  const body = table.tBodies[0];
  const order = [...body.rows];
  const last = table.tHead.rows[table.tHead.rows.length - 1];
  const corner = table.tHead.querySelector(".corner");
  const heads = [corner, ...[...last.cells].filter((th) => th !== corner)];
  heads.forEach((th, column) => {
    const asText = th === corner || th.classList.contains("text");
    const turns = asText ? ["ascending", "descending", "none"] : ["descending", "ascending", "none"];
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...th.childNodes);
    th.append(button);
    th.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = turns[(turns.indexOf(th.getAttribute("aria-sort")) + 1) % turns.length];
      heads.forEach((one) => one.setAttribute("aria-sort", "none"));
      th.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      body.append(...(next === "none" ? order : [...order].sort(compare(column, asText, sign))));
    });
  });
}

function enableFilter(tools) {
  const body = document.getElementById(tools.dataset.table).tBodies[0];
  const [search, measured, count] = ["input[type=search]", "input[type=checkbox]", "output"].map((one) => tools.querySelector(one));
  const rows = [...body.rows];
  const has = (row) => row.querySelector('td[title^="state: measured"], td[title^="state: stale"]');
  if (measured && !(rows.some(has) && !rows.every(has))) measured.parentElement.hidden = true;
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => {
      const said = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => said.includes(word)) || Boolean(measured && measured.checked && !has(row));
    });
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  };
  tools.addEventListener("input", apply);
  tools.hidden = false;
  apply();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-theme-button]").forEach(enableTheme);
  document.querySelectorAll("table.sortable").forEach(enableSort);
  document.querySelectorAll(".tools").forEach(enableFilter);
});
