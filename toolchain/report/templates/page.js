"use strict";
(() => {
  const tip = document.getElementById("tip");
  const rows = new Map([...document.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row]));
  const textOf = (mark) => mark.dataset.tip ?? rows.get(mark.dataset.key)?.dataset.tip;

  const place = (x, y) => {
    const box = tip.getBoundingClientRect();
    const left = Math.max(12, Math.min(x + 14, innerWidth - box.width - 12));
    const above = y - box.height - 14;
    tip.style.left = left + "px";
    tip.style.top = (above > 8 ? above : Math.min(y + 18, innerHeight - box.height - 8)) + "px";
  };
  const light = (key, on) => {
    if (!key) return;
    for (const other of document.querySelectorAll(`[data-key="${CSS.escape(key)}"]`)) other.classList.toggle("lit", on);
  };
  const show = (mark, x, y) => {
    const text = textOf(mark);
    if (!text) return;
    const [title, ...lines] = text.split("\n");
    const head = document.createElement("b");
    head.textContent = title;
    tip.replaceChildren(head, ...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
    tip.hidden = false;
    place(x, y);
    light(mark.dataset.key, true);
  };
  const hide = (mark) => {
    tip.hidden = true;
    light(mark.dataset.key, false);
  };
  const marks = document.querySelectorAll("[data-tip]:not(tr), [data-key]:not(tr)");
  for (const mark of marks) {
    mark.addEventListener("pointerenter", (event) => show(mark, event.clientX, event.clientY));
    mark.addEventListener("pointermove", (event) => place(event.clientX, event.clientY));
    mark.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") hide(mark); // a finger has left as soon as it has tapped
    });
    mark.addEventListener("focus", () => {
      const box = mark.getBoundingClientRect();
      show(mark, box.right, box.top);
    });
    mark.addEventListener("blur", () => hide(mark));
  }
  for (const [key, row] of rows) {
    row.addEventListener("pointerenter", () => light(key, true));
    row.addEventListener("pointerleave", () => light(key, false));
  }
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") tip.hidden = true;
  });

  // One stop of the Tab key a plot; arrows go from mark to mark inside it.
  for (const plot of document.querySelectorAll(".plot > div, [data-roving]")) {
    const stops = [...plot.querySelectorAll("[data-tip], [data-key]")];
    stops.forEach((stop, index) => stop.setAttribute("tabindex", index ? "-1" : "0"));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const at = stops.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      const next = stops[(at + step + stops.length) % stops.length];
      stops[at].setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  }

  const sortBy = (table, column, kind, descending) => {
    const body = table.tBodies[0];
    const value = (row) => row.cells[column].dataset.value ?? "";
    const number = (row) => (value(row) === "" || isNaN(value(row)) ? null : Number(value(row)));
    const compare = (one, other) => {
      const [a, b] = [number(one), number(other)];
      if (a !== null && b !== null) return a - b;
      if (kind === "number" && (a === null) !== (b === null)) return (a === null ? 1 : -1) * (descending ? -1 : 1); // unknown: last
      return value(one).localeCompare(value(other));
    };
    body.append(...[...body.rows].sort((one, other) => compare(one, other) * (descending ? -1 : 1)));
  };
  for (const button of document.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentElement.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(head.closest("table"), head.cellIndex, button.dataset.kind, descending);
    });
  }

  const root = document.documentElement;
  document.querySelector(".theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const command = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(command.textContent.trim());
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(command); // no clipboard for pages of this origin: one key press is left to do
        button.textContent = "selected";
      }
    });
  }
})();
