// Draws the figures of a report with plotly.js, with the choices of the controls above them.
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("curve-values").textContent);
  const form = document.getElementById("curve-controls");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // plotly.js reads some HTML in names.
  const plain = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;");

  // Exponential moving average, corrected for its start, as TensorBoard smooths.
  function smoothed(values, weight) {
    let sum = 0, total = 0;
    return values.map((value) => {
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + (1 - weight);
      return sum / total;
    });
  }

  function choices() {
    if (!form) return { x: "step", label: "step", smooth: 0, shown: () => true, ends: [null, null] };
    const off = new Set([...form.querySelectorAll("[name=run]:not(:checked)")].map((box) => Number(box.value)));
    const axis = form.elements.x;
    const end = (name) => form.elements[name].value === "" ? null : Number(form.elements[name].value);
    return {
      x: axis.value, label: axis.options[axis.selectedIndex].text, logx: form.elements.logx.checked,
      logy: form.elements.logy.checked, smooth: Number(form.elements.smooth.value), shown: (run) => !off.has(run),
      ends: [end("low"), end("high")],
    };
  }

  // A fine-tuning run counts steps only.
  const values = (curve, chosen) => curve.x[chosen.x] || curve.x.step;

  function traces(figure, chosen) {
    if (figure.bars) {
      return figure.bars.filter((bar) => chosen.shown(bar.run)).map((bar) => ({
        type: "bar", x: figure.labels, y: bar.y, name: plain(bar.name),
        marker: { color: colour("run" + (bar.run % 6)) },
      }));
    }
    const bands = figure.bands.filter((band) => chosen.shown(band.run)).map((band) => {
      const x = values(band, chosen);
      return {
        x: x.concat([...x].reverse()), y: band.high.concat([...band.low].reverse()), fill: "toself", mode: "none",
        fillcolor: colour("band"), name: plain(band.name), hoverinfo: "skip", showlegend: true,
      };
    });
    const named = new Set();
    const lines = figure.curves.filter((curve) => chosen.shown(curve.run)).map((curve) => {
      const isTrain = curve.kind === "train", isGuide = curve.kind === "guide";
      const isNew = !named.has(curve.name);
      named.add(curve.name);
      return {
        x: values(curve, chosen), y: isTrain && chosen.smooth ? smoothed(curve.y, chosen.smooth) : curve.y,
        name: plain(curve.name), mode: curve.kind === "validation" ? "lines+markers" : "lines", marker: { size: 4 },
        opacity: isTrain ? 0.65 : 1, hovertemplate: "%{y:.5~g}<extra>%{fullData.name}</extra>",
        showlegend: isNew && (isGuide || Boolean(figure.named)),
        line: {
          color: colour(isGuide ? "muted" : "run" + (curve.run % 6)), dash: isGuide ? "dash" : "solid",
          width: isTrain ? 1.2 : isGuide ? 1 : 2,
        },
      };
    });
    return bands.concat(lines);
  }

  // The steep start of a loss may be outside: the first tenth of the steps does not decide the range.
  function range(figure, chosen) {
    if (chosen.logy || figure.full || figure.bars) return null;
    let drawn = figure.include;
    for (const curve of figure.curves.filter((one) => chosen.shown(one.run))) {
      const last = curve.x.step[curve.x.step.length - 1];
      drawn = drawn.concat(curve.y.filter((_, index) => curve.x.step[index] >= last / 10));
    }
    if (!drawn.length) return null;
    const low = drawn.reduce((a, b) => Math.min(a, b)), high = drawn.reduce((a, b) => Math.max(a, b));
    const margin = 0.08 * (high - low) || 0.05 * Math.abs(high) || 1;
    return [low === 0 && figure.include.includes(0) ? 0 : low - margin, high + margin];
  }

  // An end that is not given, or not above 0 on a logarithmic axis, is chosen by plotly.js.
  function xRange(chosen) {
    const ends = chosen.ends.map((end) => end === null ? null : chosen.logx ? Math.log10(end) : end);
    return ends.map((end) => Number.isFinite(end) ? end : null);
  }

  // Lines at restarts; restarts of several runs at the same place share a label.
  function restarts(figure, chosen) {
    const labelled = new Set();
    return (figure.restarts || []).filter((one) => chosen.shown(one.run)).map((one) => {
      const x = one.x[chosen.x][0], isNew = !labelled.has(x + one.label);
      labelled.add(x + one.label);
      return {
        type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper",
        line: { color: colour("run" + (one.run % 6)), width: 1, dash: "dot" },
        label: {
          text: isNew ? one.label : "", textangle: -90, textposition: "end", xanchor: "right",
          font: { size: 10, color: colour("muted") },
        },
      };
    });
  }

  function layout(figure, chosen) {
    const named = traces(figure, chosen).some((one) => one.showlegend !== false);
    const axis = { gridcolor: colour("grid"), zerolinecolor: colour("grid"), linecolor: colour("grid") };
    const y = range(figure, chosen);
    return {
      margin: { l: 52, r: 12, t: named ? 40 : 8, b: 42 }, height: 250, paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 11, color: colour("muted") },
      hovermode: "x unified", hoverlabel: { bgcolor: colour("card"), font: { color: colour("ink") } },
      xaxis: {
        ...axis, title: { text: figure.xlabel || chosen.label },
        type: figure.bars ? "category" : chosen.logx ? "log" : "linear",
        ...(figure.bars ? {} : { range: xRange(chosen) }),
      },
      yaxis: {
        ...axis, exponentformat: "e", type: chosen.logy && !figure.bars ? "log" : "linear", ...(y ? { range: y } : {}),
        ...(figure.full ? { rangemode: "tozero" } : {}),
      },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", font: { size: 10 } }, barmode: "group",
      uirevision: [chosen.x, chosen.logx, chosen.logy, chosen.ends].join(),
      shapes: restarts(figure, chosen),
    };
  }

  function draw() {
    const chosen = choices();
    if (form) form.querySelector("output").textContent = chosen.smooth.toFixed(2);
    for (const place of document.querySelectorAll("[data-figure]")) {
      const figure = figures[place.dataset.figure];
      Plotly.react(place, traces(figure, chosen), layout(figure, chosen), {
        responsive: true, displaylogo: false, modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"],
      });
    }
  }

  // A picture for a paper: light colours and a white background, also where the page is dark.
  function save(button) {
    const place = button.closest("figure").querySelector("[data-figure]"), key = place.dataset.figure;
    const chosen = choices(), figure = figures[key], root = document.documentElement;
    root.dataset.paper = "";
    const picture = {
      data: traces(figure, chosen),
      layout: { ...layout(figure, chosen), width: 640, height: 400, paper_bgcolor: "#fff", plot_bgcolor: "#fff" },
    };
    delete root.dataset.paper;
    Plotly.downloadImage(picture, { format: button.dataset.save, filename: key, width: 640, height: 400, scale: 3 });
  }

  for (const button of document.querySelectorAll("[data-save]")) button.addEventListener("click", () => save(button));
  if (form) {
    form.addEventListener("input", draw);
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
