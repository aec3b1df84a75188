"use strict";
// Draws the charts in the colours of the page, and shows the networks that are pointed at.
(() => {
  const { charts, networks, drawings } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse), (max-width: 640px)");

  const template = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = {
      gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, automargin: true,
      title: { font: { size: 13, color: colour("--grey") }, standoff: 8 },
      tickfont: { size: 12 }, fixedrange: coarse.matches,
    };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
        font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 13 },
        margin: { l: 56, r: 12, t: 10, b: 48 }, hovermode: "closest",
        dragmode: coarse.matches ? false : "zoom",
        hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--grey"),
                      font: { color: colour("--ink") } },
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
        barcornerradius: 2,
      },
    };
  };

  // Drawings are compressed: an SVG has five times its size in the page.
  const unpacked = new Map();
  const drawing = (id) => {
    if (!unpacked.has(id)) {
      const bytes = Uint8Array.from(atob(drawings[id]), (char) => char.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      unpacked.set(id, new Response(stream).text().then((svg) =>
        `data:image/svg+xml,${encodeURIComponent(svg)}`));
    }
    return unpacked.get(id);
  };
  const fill = async (image, id) => {
    image.dataset.drawing = id;
    const source = await drawing(id);
    if (image.dataset.drawing === id) image.src = source; // else another was asked for meanwhile
    image.alt = `The layers of ${id}`;
  };

  const panel = document.getElementById("network");
  const show = (id) => {
    if (!panel || !networks[id] || panel.dataset.shown === id) return;
    panel.dataset.shown = id;
    panel.querySelector("h3").textContent = id;
    panel.querySelector("p").textContent = networks[id];
    const button = panel.querySelector("button"), missing = panel.querySelector(".empty");
    const drawn = id in drawings;
    button.hidden = !drawn;
    missing.hidden = drawn;
    missing.textContent = `Not drawn here; nas describe ${id} --draw FILE draws it.`;
    button.dataset.network = id;
    if (drawn) fill(button.querySelector("img"), id);
  };

  const draw = (element, view) => {
    const plot = element.querySelector(".plot");
    const still = element.classList.contains("small");
    const height = element.clientHeight - (element.querySelector(".switch")?.offsetHeight ?? 0);
    return Plotly.react(plot, structuredClone(view.data),
      { ...structuredClone(view.layout), height: view.layout.height ?? height, template: template() },
      { responsive: true, displayModeBar: false, staticPlot: still });
  };
  const shown = new Map(); // the view that each chart shows
  for (const element of document.querySelectorAll(".chart")) {
    const views = charts[element.dataset.chart] ?? [];
    if (!views.length) continue;
    if (views.length > 1) {
      const bar = element.appendChild(document.createElement("div"));
      bar.className = "switch";
      views.forEach((view, index) => {
        const button = bar.appendChild(document.createElement("button"));
        button.type = "button";
        button.textContent = view.label;
        button.setAttribute("aria-pressed", String(index === 0));
        button.addEventListener("click", () => {
          for (const other of bar.children)
            other.setAttribute("aria-pressed", String(other === button));
          shown.set(element, view);
          draw(element, view);
        });
      });
    }
    const plot = element.appendChild(document.createElement("div"));
    plot.className = "plot";
    shown.set(element, views[0]);
    draw(element, views[0]);
    if (element.dataset.chart === "pareto") {
      const point = (event) => show(event.points[0].customdata);
      plot.on("plotly_hover", point);
      plot.on("plotly_click", point);
    }
  }
  dark.addEventListener("change", () => shown.forEach((view, element) => draw(element, view)));

  const viewer = document.getElementById("viewer");
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-show]");
    const button = event.target.closest("[data-network]");
    if (link) {
      show(link.dataset.show);
      panel.scrollIntoView({ block: "nearest" });
    } else if (button) {
      fill(viewer.querySelector("img"), button.dataset.network);
      viewer.showModal();
    } else if (event.target === viewer) {
      viewer.close();
    }
  });
  for (const image of document.querySelectorAll("img[data-drawing]"))
    fill(image, image.dataset.drawing);
  const first = charts.pareto?.[0]?.data.findLast((trace) => trace.customdata);
  if (first) show(first.customdata[first.customdata.length - 1]);
})();
