"use strict";
// The page works without this script. The script filters, copies, and opens closed parts before printing.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const form = document.getElementById("filter");
  const text = document.getElementById("text");
  const clear = document.getElementById("clear");
  const shown = document.getElementById("shown");
  const chips = all("button[data-kind]", form);
  const sections = all(".owner");
  const openAtFirst = new Map(sections.map((section) => [section, section.open]));
  let rows;

  const read = (node) => node.textContent.toLowerCase();

  // Each install with everything that a search may find: its own cells, its company, its card.
  const index = () => sections.flatMap((section) => all(".card", section).flatMap((card) => {
    const about = read(card.querySelector("h3")) + read(card.querySelector(".advice"));
    return all("tbody", card).flatMap((group) => {
      const company = group.querySelector(".company");
      const common = `${company ? read(company) : ""} ${about} ${read(section.querySelector("summary"))}`;
      return all(".i", group).map((row) => ({
        row, group, card, section, text: `${read(row)} ${common}`,
        owner: section.dataset.owner, cause: card.dataset.cause, new: row.classList.contains("new") ? "1" : "",
      }));
    });
  }));

  const pressed = (kind) => chips
    .filter((chip) => chip.dataset.kind === kind && chip.getAttribute("aria-pressed") === "true")
    .map((chip) => chip.dataset.value);

  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = ["owner", "cause", "new"].map((kind) => [kind, pressed(kind)]).filter(([, values]) => values.length);
    const active = words.length > 0 || wanted.length > 0;
    if (!rows && !active) return;
    rows ??= index();
    const visible = new Set();
    let count = 0;
    for (const one of rows) {
      const fits = wanted.every(([kind, values]) => values.includes(one[kind])) && words.every((word) => one.text.includes(word));
      one.row.hidden = !fits;
      if (fits) {
        count += 1;
        for (const part of [one.group, one.group.closest(".table"), one.card, one.section]) visible.add(part);
      }
    }
    for (const part of all(".owner, .card, .card .table, .card tbody")) part.hidden = active && !visible.has(part);
    for (const section of sections) section.open = active ? visible.has(section) : openAtFirst.get(section);
    const number = (value) => value.toLocaleString("en");
    shown.textContent = active ? `${number(count)} of ${number(rows.length)} shown` : "";
    clear.hidden = !active;
  };

  const save = () => {
    const state = new URLSearchParams();
    if (text.value) state.set("text", text.value);
    for (const kind of ["owner", "cause", "new"]) for (const value of pressed(kind)) state.append(kind, value);
    try { history.replaceState(null, "", `#${state}`); } catch { location.hash = `${state}`; }
  };

  const load = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    text.value = state.get("text") ?? "";
    for (const chip of chips) {
      chip.setAttribute("aria-pressed", String(state.getAll(chip.dataset.kind).includes(chip.dataset.value)));
    }
    apply();
  };

  const changed = () => { save(); apply(); };

  const copy = async (button) => {
    const message = button.closest(".message");
    const source = message.querySelector(`.${button.dataset.copy}`);
    let done = true;
    try { await navigator.clipboard.writeText(source.textContent); } catch {
      message.querySelector("details").open = true;
      getSelection().selectAllChildren(source);
      done = document.execCommand("copy");
    }
    const before = button.dataset.title ??= button.textContent;
    button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => { button.textContent = before; }, 2000);
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  text.addEventListener("input", changed);
  clear.addEventListener("click", () => {
    text.value = "";
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    changed();
    text.focus();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.kind) {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      changed();
    } else if (button?.dataset.copy) copy(button);
  });
  addEventListener("hashchange", load);

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const part of closed) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of closed) part.open = false;
  });

  document.documentElement.classList.add("js");
  form.hidden = false;
  load();
})();
