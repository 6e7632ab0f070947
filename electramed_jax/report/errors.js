// Filters the lists of errors: every word of the search box occurs in the example, which has the chosen kind of error.
(function () {
  "use strict";
  for (const card of document.querySelectorAll("[data-errors]")) {
    const form = card.querySelector("form"), output = card.querySelector("output");
    const items = [...card.querySelectorAll("li")].map((item) => ({
      item, text: item.textContent.toLowerCase(), kinds: item.dataset.kinds.split(" "),
    }));

    function filter() {
      const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = form.elements.kind.value;
      let shown = 0;
      for (const one of items) {
        const fits = words.every((word) => one.text.includes(word)) && (!kind || one.kinds.includes(kind));
        one.item.hidden = !fits;
        shown += fits;
      }
      output.textContent = `${shown.toLocaleString("en")} shown`;
    }

    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    filter(); // a reloaded page keeps what was typed
  }
})();
