"use strict";
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PRINT_WIDTH = 660;

  function colours(printing) {
    const style = getComputedStyle(document.documentElement);
    const read = (name, printed) => (printing ? printed : style.getPropertyValue(name).trim());
    return { ink: read("--ink", "#000000"), line: read("--line", "#bbbbbb") };
  }

  function themed(layout, width, printing) {
    const colour = colours(printing);
    const axis = (own) => Object.assign({}, own, {
      color: colour.ink, gridcolor: colour.line, zerolinecolor: colour.line,
    });
    const changed = Object.assign({}, layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, Segoe UI, Roboto, sans-serif", size: 13, color: colour.ink },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    });
    if (width) { changed.width = width; } else { changed.autosize = true; }
    return changed;
  }

  function draw(printing) {
    document.querySelectorAll(".plot").forEach(function (place) {
      const figure = figures[place.dataset.chart];
      const width = printing ? PRINT_WIDTH : 0;
      Plotly.react(place, figure.data, themed(figure.layout, width, printing), {
        responsive: !printing, displaylogo: false, displayModeBar: false,
      });
    });
  }

  draw(false);
  dark.addEventListener("change", function () { draw(false); });
  window.addEventListener("beforeprint", function () { draw(true); });
  window.addEventListener("afterprint", function () { draw(false); });
  document.documentElement.dataset.drawn = document.querySelectorAll(".plot .main-svg").length > 0;
})();
