// What HTML cannot do alone: confirmation dialogs, the live indicator, the theme switch and values under the pointer.
// Everything is delegated from the document, because live updates replace parts of the page at any time.
/* global Idiomorph */
(() => {
  "use strict";
  const root = document.documentElement;

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens)?.showModal();
    if (event.target.closest("[data-closes]")) event.target.closest("dialog")?.close();
    if (event.target.closest("[data-theme-switch]")) switchTheme();
    const copier = event.target.closest("[data-copies]");
    if (copier) copy(copier);
    if (event.target instanceof HTMLDialogElement) event.target.close(); // a click on the backdrop
  });

  function switchTheme() {
    const dark = getComputedStyle(root).colorScheme === "dark"
      || (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  }

  function copy(button) {
    navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent.trim()).then(() => {
      button.textContent = "Copied";
    });
  }

  // A live update brings fresh markup in which every question is closed and every detail folded. What the reader has
  // opened stays as it is: the attribute belongs to the reader, not to the server.
  // So does the text in the field that is being typed into.
  Idiomorph.defaults.ignoreActiveValue = true;
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => name !== "open" || !node.matches("dialog, details");

  document.addEventListener("htmx:sseOpen", () => { root.dataset.live = "on"; });
  document.addEventListener("htmx:sseError", () => { root.dataset.live = "off"; });

  document.addEventListener("keydown", (event) => {
    const search = document.querySelector("[data-search]");
    if (event.key === "/" && search && !event.target.matches("input, select, textarea")) {
      event.preventDefault();
      search.focus();
    }
  });

  // Charts carry their samples in data-readout: [x percent, label, [text per line]] per sample.
  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest?.("[data-readout]");
    document.querySelectorAll("[data-readout].reading").forEach((other) => { if (other !== plot) stopReading(other); });
    if (plot) read(plot, event.clientX);
  });

  function read(plot, clientX) {
    const samples = JSON.parse(plot.dataset.readout);
    if (!samples.length) return;
    const box = plot.getBoundingClientRect();
    const at = 100 * (clientX - box.left) / box.width;
    const nearest = samples.reduce((best, one) => (Math.abs(one[0] - at) < Math.abs(best[0] - at) ? one : best));
    plot.classList.add("reading");
    const line = plot.querySelector(".crosshair");
    line.style.left = `${nearest[0]}%`;
    const figure = plot.closest("figure");
    figure.querySelectorAll("[data-line]").forEach((place, index) => {
      place.dataset.latest ??= place.textContent;
      place.textContent = nearest[2][index];
    });
    const when = figure.querySelector("[data-when]");
    when.dataset.latest ??= when.textContent;
    when.textContent = nearest[1];
  }

  function stopReading(plot) {
    plot.classList.remove("reading");
    plot.closest("figure").querySelectorAll("[data-latest]").forEach((place) => {
      place.textContent = place.dataset.latest;
      delete place.dataset.latest;
    });
  }
})();
