"use strict";
(() => {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

{% include "copy.js" %}

  const search = document.querySelector("input[type=search]");
  if (search) {
    search.form.hidden = false;
    search.form.addEventListener("submit", (event) => event.preventDefault());
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const item of all("[data-name]")) {
        item.hidden = !words.every((word) => item.dataset.name.toLowerCase().includes(word));
        left += !item.hidden;
      }
      document.querySelector(".nothing").hidden = left > 0;
    };
    search.addEventListener("input", filter);
  }

  let at = -1;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (event.key === "Escape") { search.value = ""; search.dispatchEvent(new Event("input")); search.blur(); }
      return;
    }
    if (event.key === "/" && search) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "n") {
      const problems = all(".card");
      if (!problems.length) return;
      at = (at + 1) % problems.length;
      problems[at].open = true;
      problems[at].querySelector("summary").focus();
      problems[at].scrollIntoView({ block: "nearest" });
    }
  });
})();
