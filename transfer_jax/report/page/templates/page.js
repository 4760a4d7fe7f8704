"use strict";

// Tables: each heading becomes a button that sorts by its column; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const numeric = heading.classList.contains("figure");
      const value = (row) => {
        const cell = row.cells[column];
        if (numeric) return "v" in cell.dataset ? Number(cell.dataset.v) : null;
        return cell.textContent.trim() || null;
      };
      const order = new Intl.Collator("en", { numeric: true });
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (numeric ? a - b : order.compare(a, b));
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

// Tables that are wider or higher than their box get a line which says so.
for (const box of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.setAttribute("aria-hidden", "true"); // Screen readers read the whole table.
  const update = () => {
    const across = box.scrollWidth > box.clientWidth + 1, down = box.scrollHeight > box.clientHeight + 1;
    hint.textContent = across && down ? "Scroll for more columns and rows ↔ ↕"
      : across ? "Scroll for more columns ↔" : "Scroll for more rows ↕";
    hint.hidden = !across && !down;
  };
  box.after(hint);
  new ResizeObserver(update).observe(box);
}

// Charts: unpack the library, then draw one chart at a time, so that the page stays responsive.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function draw() {
  const script = document.createElement("script");
  // A function keeps the names of the library out of the global scope.
  script.textContent = `(() => {${await unpack(document.getElementById("vega").textContent.trim())}})();`;
  document.head.append(script);
  const config = JSON.parse(document.getElementById("theme").textContent);
  const options = { actions: false, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true }, config };
  for (const plot of document.querySelectorAll(".plot")) {
    const spec = JSON.parse(plot.parentElement.querySelector(".spec").textContent);
    const live = document.createElement("div");
    live.className = "live";
    plot.append(live);
    await window.vegaEmbed(live, spec, options);
    // Screen readers read the label of the plot and the table below it.
    live.querySelector("svg").setAttribute("aria-hidden", "true");
    // The image of the chart stays for print, because it has the right size for paper.
    plot.classList.add("drawn");
    await new Promise((next) => setTimeout(next));
  }
}

async function main() {
  const plots = document.querySelectorAll(".plot");
  try {
    if (plots.length) await draw();
    document.documentElement.dataset.charts = "drawn";
  } catch (error) {
    // An old browser: the images of the charts stay.
    for (const live of document.querySelectorAll(".plot:not(.drawn) .live")) live.remove();
    document.documentElement.dataset.charts = "images";
    console.error(error);
  }
}
main();
