"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows;
  const readout = document.getElementById("readout");
  const figure = document.getElementById("figure");
  const spoken = document.getElementById("spoken");
  const SVG = "http://www.w3.org/2000/svg";
  const LEFT = 58, RIGHT = 10, TOP = 14, BOTTOM = 24, HEIGHT = 190;
  let chosen = null;

  const number = (value) => {
    if (value === null || value === undefined) return "–";
    if (typeof value === "string") return value;
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e4) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  };
  const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`);

  const made = (parent, name, attributes, text) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  };

  // --- The figure ---

  const usable = (value) => typeof value === "number" && value > 0 && Number.isFinite(value);

  const draw = (panel) => {
    const spec = data.panels[panel.dataset.panel];
    const width = Math.max(260, panel.clientWidth);
    panel.querySelector("svg")?.remove();
    const svg = made(panel, "svg", {
      viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": spec.label,
    });
    const values = rows.flatMap((row) => [row[spec.measured], row[spec.predicted]]).filter(usable).map(Math.log10);
    if (!values.length) { made(svg, "text", { x: LEFT, y: 40, class: "axis" }, "Nothing to show."); return; }
    // Powers of ten around what there is; what is further down than forty is as good as none.
    // Four at least, so that chance looks small.
    let high = Math.ceil(Math.max(...values) + 0.05);
    let low = Math.max(high - 40, Math.floor(Math.min(...values) - 0.05));
    while (high - low < 4) { if ((high - low) % 2) low -= 1; else high += 1; }
    const x = (index) => LEFT + (rows.length < 2 ? 0.5 : index / (rows.length - 1)) * (width - LEFT - RIGHT);
    const y = (log) => TOP + ((high - Math.max(low, Math.min(high, log))) / Math.max(1, high - low)) * (HEIGHT - TOP - BOTTOM);
    if (spec.band) {
      const [from, to] = spec.band.map((value) => y(Math.log10(value)));
      made(svg, "rect", { class: "band", x: LEFT, y: to, width: width - LEFT - RIGHT, height: Math.max(0, from - to) });
    }
    const step = Math.max(1, Math.ceil((high - low) / 5));
    for (let power = low; power <= high; power += step) {
      made(svg, "line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(power), y2: y(power) });
      const label = power >= -2 && power <= 3 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`;
      made(svg, "text", { class: "axis", x: LEFT - 8, y: y(power) + 4, "text-anchor": "end" }, label);
    }
    made(svg, "text", { class: "axis", x: LEFT, y: HEIGHT - 6 }, "input");
    made(svg, "text", { class: "axis", x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, "output");
    rows.forEach((row, index) => {
      if (!row.fault) return;
      made(svg, "line", { class: `flag ${row.fault}`, x1: x(index), x2: x(index), y1: TOP, y2: HEIGHT - BOTTOM });
      made(svg, "path", { class: `mark ${row.fault}`, d: `M${x(index) - 5},4 h10 l-5,8 z` });
    });
    const path = (key, name) => {
      let command = "";
      let pen = "M";
      rows.forEach((row, index) => {
        if (usable(row[key])) {
          command += `${pen}${x(index).toFixed(1)},${y(Math.log10(row[key])).toFixed(1)}`;
          pen = "L";
        } else { pen = "M"; }
      });
      if (command) made(svg, "path", { class: name, d: command });
    };
    if (spec.predicted) path(spec.predicted, "predicted");
    path(spec.measured, "measured");
    if (rows.length <= 60) {
      rows.forEach((row, index) => {
        if (usable(row[spec.measured])) {
          made(svg, "circle", { class: "dot", cx: x(index), cy: y(Math.log10(row[spec.measured])), r: 3.5 });
        }
      });
    }
    const cross = made(svg, "line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    panel.cross = (index) => {
      cross.setAttribute("visibility", index === null ? "hidden" : "visible");
      if (index !== null) { cross.setAttribute("x1", x(index)); cross.setAttribute("x2", x(index)); }
    };
    panel.place = x;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const share = ((event.clientX - box.left) * (width / box.width) - LEFT) / (width - LEFT - RIGHT);
      show(Math.round(Math.max(0, Math.min(1, share)) * (rows.length - 1)), event);
    });
    svg.addEventListener("pointerleave", () => show(null));
  };

  const facts = (row) => [
    ["signal (std)", number(row.std)],
    ["signal, predicted", number(row.predicted_signal)],
    ["gradient (rms)", number(row.gradient)],
    ["gradient, predicted", number(row.predicted_gradient)],
    ["sensitivity", number(row.sensitivity)],
    ["dead units", percent(row.dead)],
    ["saturated", percent(row.saturated)],
    ["cosine", number(row.cosine)],
  ].filter(([, value]) => value !== "–");

  const panels = [...document.querySelectorAll(".panel")];

  const show = (index, event) => {
    chosen = index;
    panels.forEach((panel) => panel.cross && panel.cross(index));
    document.querySelectorAll("tr.lit").forEach((line) => line.classList.remove("lit"));
    readout.hidden = index === null;
    if (index === null) return;
    const row = rows[index];
    document.querySelector(`tr[data-index="${index}"]`)?.classList.add("lit");
    readout.replaceChildren();
    const title = document.createElement("b");
    title.textContent = row.path;
    readout.append(title);
    for (const [name, value] of facts(row)) {
      const line = document.createElement("div");
      line.textContent = `${name}: ${value}`;
      readout.append(line);
    }
    spoken.textContent = `${row.path}. ${facts(row).map((pair) => pair.join(" ")).join(", ")}.`;
    const box = figure.getBoundingClientRect();
    const at = panels[0].offsetLeft + (panels[0].place ? panels[0].place(index) : 0);
    const beside = at + 14 + readout.offsetWidth <= box.width ? at + 14 : at - 14 - readout.offsetWidth;
    readout.style.left = `${Math.max(4, Math.min(beside, box.width - readout.offsetWidth - 4))}px`;
    readout.style.top = `${event ? Math.max(4, event.clientY - box.top + 16) : panels[0].offsetTop + 30}px`;
  };

  const drawAll = () => panels.forEach(draw);
  drawAll();
  let width = figure.clientWidth;
  window.addEventListener("resize", () => {
    if (figure.clientWidth !== width) { width = figure.clientWidth; drawAll(); show(null); }
  });
  figure.addEventListener("keydown", (event) => {
    const last = rows.length - 1;
    const from = chosen === null ? -1 : chosen;
    const moves = { ArrowRight: Math.min(last, from + 1), ArrowLeft: Math.max(0, from - 1), Home: 0, End: last };
    if (event.key in moves && rows.length) { event.preventDefault(); show(moves[event.key]); }
    if (event.key === "Escape") show(null);
  });
  figure.addEventListener("blur", () => show(null));

  // --- The table ---

  const body = document.querySelector("#layers tbody");

  const inside = (row) => {
    const holder = document.createElement("div");
    holder.className = "inside";
    if (row.histogram) {
      const { low, high, counts } = row.histogram;
      const part = document.createElement("div");
      const svg = made(part, "svg", { viewBox: "0 0 240 92", width: 240, height: 92, role: "img",
        "aria-label": `Histogram of the output, from ${number(low)} to ${number(high)}` });
      const most = Math.max(...counts);
      const wide = 240 / counts.length;
      counts.forEach((count, index) => {
        const tall = (count / most) * 72;
        made(svg, "rect", { class: "bar", x: index * wide + 1, y: 74 - tall, width: Math.max(1, wide - 2), height: tall });
      });
      made(svg, "text", { class: "axis", x: 0, y: 89 }, number(low));
      made(svg, "text", { class: "axis", x: 240, y: 89, "text-anchor": "end" }, number(high));
      holder.append(part);
    }
    const list = document.createElement("ul");
    for (const line of row.lines) {
      const item = document.createElement("li");
      item.textContent = line;
      list.append(item);
    }
    holder.append(list);
    return holder;
  };

  const toggle = (button) => {
    const line = button.closest("tr");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) { line.nextElementSibling.remove(); return; }
    const more = document.createElement("tr");
    more.className = "more";
    const cell = document.createElement("td");
    cell.colSpan = line.children.length;
    cell.append(inside(rows[Number(line.dataset.index)]));
    more.append(cell);
    line.after(more);
  };

  body.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) toggle(button);
  });

  const key = (cell) => {
    const value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
  };

  document.querySelectorAll("#layers thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const header = button.closest("th");
      const up = header.getAttribute("aria-sort") !== "ascending";
      document.querySelectorAll("#layers thead th").forEach((each) => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.querySelectorAll("tr.more").forEach((line) => line.remove());
      body.querySelectorAll("[aria-expanded]").forEach((each) => each.setAttribute("aria-expanded", "false"));
      const lines = [...body.querySelectorAll("tr.row")];
      lines.sort((one, other) => {
        const [a, b] = [key(one.children[column]), key(other.children[column])];
        // What is not known comes last, either way.
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
        return up ? order : -order;
      });
      body.append(...lines);
    });
  });
})();
