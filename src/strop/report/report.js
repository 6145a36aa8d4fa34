"use strict";
// Search over the samples, and reading a curve under the pointer or by the arrow keys. The page is whole without it.
(() => {
  const form = document.querySelector("form.find");
  if (form) {
    const items = [...document.querySelectorAll("#compared > details")];
    const texts = items.map((item) => item.textContent.toLowerCase());
    const [query, choice, count] = [form.querySelector("input"), form.querySelector("select"), form.querySelector("output")];
    const nothing = document.querySelector(".nothing");
    const update = () => {
      const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      items.forEach((item, i) => {
        const wanted = !choice.value || (choice.value === "cut" ? "cut" in item.dataset : item.dataset.trend === choice.value);
        item.hidden = !(wanted && words.every((word) => texts[i].includes(word)));
        shown += !item.hidden;
      });
      count.textContent = `${shown} of ${items.length}`;
      nothing.hidden = shown > 0;
    };
    const clear = () => {
      query.value = "";
      update();
    };
    form.hidden = false;
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    query.addEventListener("keydown", (event) => event.key === "Escape" && clear());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      event.preventDefault();
      query.focus();
      query.select();
    });
    update();
  }

  for (const svg of document.querySelectorAll("svg[data-x]")) {
    const figure = svg.closest("figure");
    const readout = figure.querySelector(".readout");
    const [low, high, left, right] = svg.dataset.x.split(" ").map(Number);
    const bottom = svg.viewBox.baseVal.height - 30;
    let [rows, names, rule, at] = [null, null, null, -1];
    const start = () => {
      names = [...figure.querySelectorAll("thead th")].map((cell) => cell.textContent);
      rows = [...figure.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
      rule = document.createElementNS(svg.namespaceURI, "path");
      rule.setAttribute("class", "rule");
      svg.append(rule);
    };
    const stepOf = (row) => Number(row[0].replaceAll(",", ""));
    const show = (index) => {
      at = index;
      const x = left + ((stepOf(rows[at]) - low) / (high - low)) * (right - left);
      rule.setAttribute("d", `M${x.toFixed(1)} 14V${bottom}`);
      readout.textContent = rows[at].map((value, i) => `${names[i]} ${value || "–"}`).join("  ·  ");
      readout.hidden = false;
    };
    const hide = () => {
      if (rule) rule.setAttribute("d", "");
      readout.hidden = true;
    };
    svg.addEventListener("pointermove", (event) => {
      if (!rows) start();
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const step = low + ((x - left) / (right - left)) * (high - low);
      const distance = (row) => Math.abs(stepOf(row) - step);
      show(rows.reduce((best, row, i) => (distance(row) < distance(rows[best]) ? i : best), 0));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      if (!rows) start();
      const last = rows.length - 1;
      const stride = event.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
      const next = { ArrowLeft: (at < 0 ? last + 1 : at) - stride, ArrowRight: at + stride, Home: 0, End: last }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      show(Math.min(last, Math.max(0, next)));
    });
  }
})();
