"use strict";
(() => {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

{% include "copy.js" %}

  // A line that is linked to may be in a log that is closed.
  function reveal() {
    const name = decodeURIComponent(location.hash.slice(1));
    const place = name && document.getElementById(name);
    if (!place) return;
    for (let box = place.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    place.scrollIntoView({ block: "center" });
  }
  addEventListener("hashchange", reveal);
  reveal();

  // A log with a splat opens at the splat.
  for (const log of all(".log")) {
    const hit = log.querySelector(".hit");
    if (hit && !log.querySelector(":target")) log.scrollTop = hit.offsetTop - log.offsetTop - 60;
  }

  const form = document.querySelector(".filter");
  const search = form.querySelector("input[type=search]");
  const only = form.querySelector("input[type=checkbox]");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const program of all(".program")) {
      let shown = 0;
      for (const item of all("li", program)) {
        const name = item.dataset.name.toLowerCase();
        const fits = words.every((word) => name.includes(word))
          && !(only.checked && item.dataset.status === "pass");
        item.hidden = !fits;
        shown += fits;
      }
      program.hidden = shown === 0;
      if (words.length || only.checked) program.open = shown > 0;
      left += shown;
    }
    document.querySelector(".nothing").hidden = left > 0 || all(".program").length === 0;
  }
  search.addEventListener("input", filter);
  only.addEventListener("change", filter);

  let at = -1;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (event.key === "Escape") { search.value = ""; filter(); search.blur(); }
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (event.key === "n") {
      const problems = all(".card");
      if (!problems.length) return;
      at = (at + 1) % problems.length;
      problems[at].open = true;
      problems[at].querySelector("summary").focus();
      problems[at].scrollIntoView({ block: "nearest" });
    } else if (event.key === "e") {
      const programs = all(".program:not([hidden])");
      const open = !programs.every((program) => program.open);
      programs.forEach((program) => { program.open = open; });
    }
  });
})();
