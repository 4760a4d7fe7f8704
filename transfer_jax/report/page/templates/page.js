"use strict";
document.getElementById("unscripted").remove();

// Tables: a heading becomes a button that sorts by its column; what is empty stays last.
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

// Charts: the library is unpacked, then one after the other is drawn, so that the page answers meanwhile.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function draw() {
  const script = document.createElement("script");
  // In a function of its own, because its short names are not meant for everybody.
  script.textContent = `(() => {${await unpack(document.getElementById("vega").textContent.trim())}})();`;
  document.head.append(script);
  const config = JSON.parse(document.getElementById("theme").textContent);
  const options = { actions: false, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true }, config };
  for (const plot of document.querySelectorAll(".plot")) {
    const spec = JSON.parse(plot.parentElement.querySelector(".spec").textContent);
    await window.vegaEmbed(plot, spec, options);
    // What a screen reader is told is the label of the plot, and the table below.
    plot.querySelector("svg").setAttribute("aria-hidden", "true");
    await new Promise((next) => setTimeout(next));
  }
}

async function main() {
  const plots = document.querySelectorAll(".plot");
  try {
    if (plots.length) await draw();
    document.documentElement.dataset.charts = "drawn";
  } catch (error) {
    // An old browser: the tables have all that the charts would show.
    for (const plot of plots) {
      plot.classList.add("missing");
      plot.parentElement.querySelector("details").open = true;
    }
    document.documentElement.dataset.charts = "missing";
    console.error(error);
  }
}
main();
