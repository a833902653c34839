"use strict";
(() => {
  const tip = document.getElementById("tip");
  const marks = document.querySelectorAll("[data-tip]");

  const place = (x, y) => {
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(12, x + 14), innerWidth - box.width - 12);
    const above = y - box.height - 14;
    tip.style.left = left + "px";
    tip.style.top = (above > 8 ? above : y + 18) + "px";
  };
  const light = (key, on) => {
    if (!key) return;
    for (const other of document.querySelectorAll(`[data-key="${CSS.escape(key)}"]`)) other.classList.toggle("lit", on);
  };
  const show = (mark, x, y) => {
    const [title, ...lines] = mark.dataset.tip.split("\n");
    const head = document.createElement("b");
    head.textContent = title;
    tip.replaceChildren(head, ...lines.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
    tip.hidden = false;
    place(x, y);
    light(mark.dataset.key, true);
  };
  const hide = (mark) => {
    tip.hidden = true;
    light(mark.dataset.key, false);
  };
  for (const mark of marks) {
    mark.addEventListener("pointerenter", (event) => show(mark, event.clientX, event.clientY));
    mark.addEventListener("pointermove", (event) => place(event.clientX, event.clientY));
    mark.addEventListener("pointerleave", () => hide(mark));
    mark.addEventListener("focus", () => {
      const box = mark.getBoundingClientRect();
      show(mark, box.right, box.top);
    });
    mark.addEventListener("blur", () => hide(mark));
  }
  for (const row of document.querySelectorAll("tr[data-key]")) {
    row.addEventListener("pointerenter", () => light(row.dataset.key, true));
    row.addEventListener("pointerleave", () => light(row.dataset.key, false));
  }

  const root = document.documentElement;
  document.querySelector(".theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const command = button.previousElementSibling;
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
