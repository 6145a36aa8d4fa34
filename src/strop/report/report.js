"use strict";
// Search over the samples, and reading a curve under the pointer. The page is whole without it.
(() => {
  const form = document.querySelector("form.find");
  if (form) {
    const items = [...document.querySelectorAll("#compared > details")];
    const texts = items.map((item) => item.textContent.toLowerCase());
    const [query, choice, count] = [form.querySelector("input"), form.querySelector("select"), form.querySelector("output")];
    const update = () => {
      const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      items.forEach((item, i) => {
        const wanted = !choice.value || (choice.value === "cut" ? "cut" in item.dataset : item.dataset.trend === choice.value);
        item.hidden = !(wanted && words.every((word) => texts[i].includes(word)));
        shown += !item.hidden;
      });
      count.textContent = `${shown} of ${items.length}`;
    };
    form.hidden = false;
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    update();
  }

  for (const svg of document.querySelectorAll("svg[data-x]")) {
    const figure = svg.closest("figure");
    const readout = figure.querySelector(".readout");
    const [low, high, left, right] = svg.dataset.x.split(" ").map(Number);
    let rows = null;
    let rule = null;
    const start = () => {
      rows = [...figure.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
      rule = document.createElementNS(svg.namespaceURI, "path");
      rule.setAttribute("class", "rule");
      svg.append(rule);
    };
    const stepOf = (row) => Number(row[0].replaceAll(",", ""));
    svg.addEventListener("pointermove", (event) => {
      if (!rows) start();
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const step = low + ((x - left) / (right - left)) * (high - low);
      const row = rows.reduce((best, next) => (Math.abs(stepOf(next) - step) < Math.abs(stepOf(best) - step) ? next : best));
      const at = left + ((stepOf(row) - low) / (high - low)) * (right - left);
      rule.setAttribute("d", `M${at.toFixed(1)} 14V220`);
      readout.textContent = `step ${row[0]}: ` + row.slice(1).map((value) => value || "–").join(" / ");
      readout.hidden = false;
    });
    svg.addEventListener("pointerleave", () => {
      if (rule) rule.setAttribute("d", "");
      readout.hidden = true;
    });
  }
})();
