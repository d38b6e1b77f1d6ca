// The cortex: a surface that is drawn without a graphics card, so that it looks the same in every browser and on paper.
(() => {
  const root = document.getElementById("cortex-view");
  if (!root) return;
  const data = JSON.parse(document.getElementById("cortex-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const element = (id) => document.getElementById(id);

  const NONE = 65535;
  const faces = new Uint16Array(bytes(data.faces));
  const nearest = new Uint16Array(bytes(data.nearest));
  const layouts = data.layouts.map((text) => new Uint16Array(bytes(text)));
  const scale = data.scale.map(rgb);
  const regionColours = data.colours.map(rgb);
  const nPoints = nearest.length;

  const surfaces = data.hemispheres.map((hemisphere) => {
    const points = Float32Array.from(new Int16Array(bytes(hemisphere.points)), (value) => value * data.unit);
    for (let axis = 0; axis < 3; axis++) {
      let [low, high] = [Infinity, -Infinity];
      for (let i = axis; i < points.length; i += 3) [low, high] = [Math.min(low, points[i]), Math.max(high, points[i])];
      for (let i = axis; i < points.length; i += 3) points[i] -= (low + high) / 2;
    }
    return { points, normals: normalsOf(points), sulci: new Int8Array(bytes(hemisphere.sulci)) };
  });

  function normalsOf(points) {
    const normals = new Float32Array(points.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const [ux, uy, uz] = [0, 1, 2].map((k) => points[b + k] - points[a + k]);
      const [vx, vy, vz] = [0, 1, 2].map((k) => points[c + k] - points[a + k]);
      const normal = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += normal[k];
    }
    for (let i = 0; i < normals.length; i += 3) {
      const length = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
      for (let k = 0; k < 3; k++) normals[i + k] /= length;
    }
    return normals;
  }

  // Return which vertex, how much light and how much sulcus each pixel shows. The right hemisphere turns like a mirror
  // image of the left one, so that both show the same side. Angles are in degrees: 180 across is the left lateral view.
  const across = new Float32Array(nPoints), down = new Float32Array(nPoints), near = new Float32Array(nPoints), light = new Float32Array(nPoints);
  function rasterise(side, view, width, height) {
    const { points, normals, sulci } = surfaces[side];
    const yaw = ((side ? 180 - view.yaw : view.yaw) * Math.PI) / 180, pitch = (view.pitch * Math.PI) / 180;
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const size = (view.zoom * Math.min(width / 2.2, height / 1.62)) / 100;
    for (let i = 0, p = 0; i < nPoints; i++, p += 3) {
      const x = points[p], y = points[p + 1], z = points[p + 2];
      across[i] = width / 2 + size * (cy * y - sy * x);
      down[i] = height / 2 - size * (cp * z - sp * (cy * x + sy * y));
      near[i] = cp * (cy * x + sy * y) + sp * z;
      light[i] = cp * (cy * normals[p] + sy * normals[p + 1]) + sp * normals[p + 2];
    }
    const picture = {
      width, height,
      vertex: new Uint16Array(width * height).fill(NONE),
      light: new Float32Array(width * height),
      sulcus: new Float32Array(width * height),
    };
    const depth = new Float32Array(width * height).fill(-Infinity);
    for (let f = 0; f < faces.length; f += 3) {
      const a = faces[f], b = faces[f + 1], c = faces[f + 2];
      const ax = across[a], ay = down[a], bx = across[b], by = down[b], cx = across[c], cy_ = down[c];
      const area = (bx - ax) * (cy_ - ay) - (by - ay) * (cx - ax);
      if (area >= 0) continue; // seen from behind
      const left = Math.max(0, Math.ceil(Math.min(ax, bx, cx))), right = Math.min(width - 1, Math.floor(Math.max(ax, bx, cx)));
      const top = Math.max(0, Math.ceil(Math.min(ay, by, cy_))), bottom = Math.min(height - 1, Math.floor(Math.max(ay, by, cy_)));
      for (let y = top; y <= bottom; y++)
        for (let x = left; x <= right; x++) {
          const u = ((bx - x) * (cy_ - y) - (by - y) * (cx - x)) / area;
          const v = ((cx - x) * (ay - y) - (cy_ - y) * (ax - x)) / area;
          const w = 1 - u - v;
          if (u < -1e-6 || v < -1e-6 || w < -1e-6) continue;
          const i = y * width + x;
          const z = u * near[a] + v * near[b] + w * near[c];
          if (z <= depth[i]) continue;
          depth[i] = z;
          picture.vertex[i] = u >= v && u >= w ? a : v >= w ? b : c;
          picture.light[i] = u * light[a] + v * light[b] + w * light[c];
          picture.sulcus[i] = u * sulci[a] + v * sulci[b] + w * sulci[c];
        }
    }
    return picture;
  }

  // Return the colour, the set of regions and the value of each vertex of the release, for one map.
  const decoded = new Map();
  function mapOf(subject, measure, region) {
    const layout = layouts[data.subjects[subject].layout];
    const values = new Float32Array(layout.length).fill(NaN);
    const colours = new Uint8Array(3 * layout.length);
    const coloured = new Uint8Array(layout.length);
    const key = `${subject} ${measure}`;
    if (measure >= 0) {
      if (!decoded.has(key)) decoded.set(key, new Uint16Array(bytes(data.subjects[subject].values[measure])));
      const { lowest, highest } = data.measures[measure];
      const codes = decoded.get(key);
      for (let i = 0, next = 0; i < layout.length; i++)
        if (layout[i]) {
          const code = codes[next++];
          if (code !== NONE) values[i] = lowest + (code / 65534) * (highest - lowest);
        }
    }
    for (let i = 0; i < layout.length; i++) {
      if (!layout[i]) continue;
      const regions = data.sets[layout[i] - 1];
      if (region >= 0 && !regions.includes(region)) continue;
      if (measure >= 0 && Number.isNaN(values[i])) continue;
      const colour = measure < 0
        ? regionColours[region >= 0 ? region : regions.length > 1 ? regionColours.length - 1 : regions[0]]
        : scale[Math.min(63, Math.max(0, Math.floor((64 * values[i]) / data.measures[measure].end)))];
      colours.set(colour, 3 * i);
      coloured[i] = 1;
    }
    return { layout, values, colours, coloured, region };
  }

  function paint(canvas, picture, map, side, { borders, marked, names }) {
    const { width, height, vertex } = picture;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const start = side * data.n;
    for (let i = 0; i < vertex.length; i++) {
      if (vertex[i] === NONE) continue;
      const own = start + nearest[vertex[i]];
      const shade = 0.5 + 0.5 * Math.max(0, picture.light[i]);
      let [r, g, b] = [0, 0, 0];
      if (map.coloured[own]) {
        r = map.colours[3 * own]; g = map.colours[3 * own + 1]; b = map.colours[3 * own + 2];
      } else {
        const depth = Math.min(1, Math.max(0, 0.5 + picture.sulcus[i] / 4));
        r = g = b = 214 - 52 * depth;
      }
      if (own === marked) [r, g, b] = [255, 255, 255];
      else if (borders) {
        const beside = vertex[i + 1] ?? NONE, below = vertex[i + width] ?? NONE;
        const code = map.layout[own];
        if ((beside !== NONE && map.layout[start + nearest[beside]] !== code) || (below !== NONE && map.layout[start + nearest[below]] !== code))
          r = g = b = 20;
      }
      pixels[i] = 0xff000000 | ((b * shade) << 16) | ((g * shade) << 8) | (r * shade);
    }
    context.putImageData(image, 0, 0);
    if (names) writeNames(context, picture, map, side, names);
  }

  // Write the name of each region in sight, with letters of a size in pixels, where the region is widest. Larger regions come
  // first, and a name that would lie on another one is left out.
  function writeNames(context, { width, height, vertex }, map, side, size) {
    const step = Math.max(1, Math.round(size / 8)), columns = Math.ceil(width / step); // one pixel in so many is looked at
    const codes = new Uint16Array(columns * Math.ceil(height / step));
    for (let i = 0; i < codes.length; i++) {
      const point = vertex[step * (width * Math.floor(i / columns) + (i % columns))];
      if (point !== NONE) codes[i] = map.layout[side * data.n + nearest[point]];
    }
    const inside = new Uint16Array(codes.length); // steps to the border of the region
    const widest = new Map(); // by the code of a set of regions
    const reach = (i, beside) => (codes[beside] === codes[i] ? inside[beside] : 0) + 1;
    for (let i = 0; i < codes.length; i++) if (codes[i]) inside[i] = Math.min(reach(i, i - 1), reach(i, i - columns));
    for (let i = codes.length - 1; i >= 0; i--) {
      if (!codes[i]) continue;
      inside[i] = Math.min(inside[i], reach(i, i + 1), reach(i, i + columns));
      if (inside[i] > (inside[widest.get(codes[i])] ?? 0)) widest.set(codes[i], i);
    }
    const placed = [];
    Object.assign(context, { font: `600 ${size}px system-ui, sans-serif`, textAlign: "center", textBaseline: "middle", lineWidth: size / 4, lineJoin: "round" });
    for (const [code, i] of [...widest].sort((first, second) => inside[second[1]] - inside[first[1]])) {
      const regions = data.sets[code - 1].filter((region) => map.region < 0 || region === map.region);
      const text = regions.map((region) => data.regions[region]).join(" + ");
      const half = [context.measureText(text).width / 2, size / 2];
      const at = [Math.min(width - half[0], Math.max(half[0], step * (i % columns))), step * Math.floor(i / columns)];
      const isFree = placed.every((other) => [0, 1].some((k) => Math.abs(at[k] - other.at[k]) > half[k] + other.half[k]));
      if (!text || step * inside[i] < size / 4 || !isFree) continue;
      placed.push({ at, half });
      Object.assign(context, { strokeStyle: "#000", fillStyle: "#fff" });
      context.strokeText(text, ...at);
      context.fillText(text, ...at);
    }
  }

  const VIEWS = {
    "Visual cortex": { yaw: -42, pitch: -20 }, Behind: { yaw: -90, pitch: -10 }, Lateral: { yaw: 180, pitch: 0 }, Medial: { yaw: 0, pitch: 0 },
    Ventral: { yaw: 180, pitch: -90 }, Dorsal: { yaw: 180, pitch: 90 },
  };
  const view = { ...VIEWS["Visual cortex"], zoom: 1 };
  const canvases = [element("cortex-left"), element("cortex-right")];
  const chosen = { subject: element("cortex-subject"), measure: element("cortex-measure"), region: element("cortex-region") };
  const borders = element("cortex-borders"), names = element("cortex-names");
  const readout = element("cortex-readout"), summary = element("cortex-summary");
  let pictures = [], map, marked = [-1, -1], waiting = false, moving = false;

  const number = (value, digits) => value.toFixed(digits).replace("-", "−");
  const describe = (subject, measure, region) =>
    `${measure < 0 ? "Regions" : data.measures[measure].title} of ${data.subjects[subject].name}` + (region >= 0 ? `, ${data.regions[region]}` : "");

  function draw() {
    waiting = false;
    if (!canvases[0].clientWidth) return; // hidden, as on paper
    const fine = moving ? 1 : Math.max(2, Math.round(devicePixelRatio));
    canvases.forEach((canvas, side) => {
      const { clientWidth, clientHeight } = canvas;
      pictures[side] = rasterise(side, view, clientWidth * fine, clientHeight * fine);
    });
    repaint();
  }
  const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  function repaint() {
    canvases.forEach((canvas, side) => {
      const size = names.checked && (13 * pictures[side].width) / canvas.clientWidth;
      paint(canvas, pictures[side], map, side, { borders: borders.checked, marked: marked[side], names: size });
    });
  }

  function choose() {
    const [subject, measure, region] = [chosen.subject, chosen.measure, chosen.region].map((select) => Number(select.value));
    map = mapOf(subject, measure, region);
    canvases.forEach((canvas, side) =>
      canvas.setAttribute("aria-label", `${describe(subject, measure, region)} on the inflated ${data.hemispheres[side].name}. The arrow keys turn it, plus and minus change its size; the text below says what is at its centre.`));
    writeLegend(element("cortex-legend"), measure, region);
    summary.textContent = summarise(subject, measure, region);
    tell(-1);
    redraw();
  }

  // Say in words what the map shows, for those who cannot see it.
  const isLeft = (own) => own < data.n;
  const nameVertex = (own) => `vertex ${(isLeft(own) ? own : own - data.n).toLocaleString("en")} of the ${isLeft(own) ? "left" : "right"} hemisphere`;
  const nameRegions = (own) => data.sets[map.layout[own] - 1].map((i) => data.regions[i]).join(" and ");
  const withUnit = (value, { unit, digits }) => `${unit === "r" ? "r = " : ""}${number(value, digits)}${unit === "%" ? " %" : ""}`;
  function summarise(subject, measure, region) {
    const shown = [...map.coloured.keys()].filter((own) => map.coloured[own]);
    const title = `${describe(subject, measure, region)}: ${shown.length.toLocaleString("en")} vertices in the map`;
    if (measure < 0 || !shown.length) return `${title}.`;
    shown.sort((first, second) => map.values[first] - map.values[second]);
    const [middle, highest] = [shown[shown.length >> 1], shown.at(-1)].map((own) => withUnit(map.values[own], data.measures[measure]));
    return `${title}. The median is ${middle}. The highest value is ${highest}, at ${nameVertex(shown.at(-1))}, in ${nameRegions(shown.at(-1))}.`;
  }

  function writeLegend(target, measure, region) {
    target.replaceChildren();
    const add = (className, text, parent = target) => {
      const span = document.createElement("span");
      span.className = className;
      span.textContent = text;
      parent.append(span);
      return span;
    };
    if (measure >= 0) {
      const { title, unit, end, lowest, highest } = data.measures[measure];
      add("", `${title} (${unit})`);
      const ends = add("ends", "");
      add("", lowest < 0 ? "≤ 0" : "0", ends);
      add("scale", "", ends);
      add("", (highest > end ? "≥ " : "") + end, ends);
      return;
    }
    const numbers = region >= 0 ? [region] : data.regions.length > 40 ? [] : data.regions.map((_, i) => i);
    if (!numbers.length) add("hint", `${data.regions.length} regions; point at one to see its name`);
    for (const i of numbers) add("", data.regions[i]).prepend(swatch(data.colours[i]));
    if (region < 0 && data.sets.length > data.regions.length) add("", "more than one").prepend(swatch(data.colours.at(-1)));
  }
  function swatch(colour) {
    const square = document.createElement("span");
    square.className = "swatch";
    square.style.background = colour;
    return square;
  }

  // Say what is at a vertex, and mark it. A side below 0 is nowhere.
  function tell(side, own = -1) {
    const before = marked.join();
    marked = [-1, -1];
    if (side < 0) readout.textContent = "Point at a vertex, or turn with the arrow keys.";
    else {
      marked[side] = own;
      const code = map.layout[own];
      const measure = Number(chosen.measure.value);
      const parts = [data.subjects[chosen.subject.value].name, nameVertex(own)];
      parts.push(code ? nameRegions(own) : "in no region of the release");
      if (code && measure >= 0) {
        const title = data.measures[measure].title.toLowerCase();
        const value = map.values[own];
        parts.push(Number.isNaN(value) ? `no ${title}` : `${title} ${withUnit(value, data.measures[measure])}`);
      }
      readout.textContent = parts.join(" · ");
    }
    return marked.join() !== before;
  }
  function tellAt(side, x, y) {
    const { width, height, vertex } = pictures[side];
    const [column, row] = [Math.round(x * width), Math.round(y * height)];
    const found = column >= 0 && row >= 0 && column < width && row < height ? vertex[row * width + column] : NONE;
    if (found === NONE ? tell(-1) : tell(side, side * data.n + nearest[found])) repaint();
  }
  const turn = (yaw, pitch) => {
    view.yaw += yaw;
    view.pitch = Math.min(90, Math.max(-90, view.pitch + pitch));
    redraw();
  };
  const zoom = (factor) => {
    view.zoom = Math.min(5, Math.max(0.6, view.zoom * factor));
    redraw();
  };

  canvases.forEach((canvas, side) => {
    const sign = side ? 1 : -1;
    let last = [0, 0];
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      last = [event.clientX, event.clientY];
      moving = true;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (moving) {
        turn(sign * 0.5 * (event.clientX - last[0]), 0.5 * (event.clientY - last[1]));
        last = [event.clientX, event.clientY];
      } else {
        const box = canvas.getBoundingClientRect();
        tellAt(side, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      }
    });
    const stop = (event) => {
      if (!moving) return;
      moving = false;
      redraw();
      if (event.type !== "pointerup") return;
      const box = canvas.getBoundingClientRect();
      requestAnimationFrame(() => tellAt(side, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
    };
    canvas.addEventListener("pointerup", stop);
    canvas.addEventListener("pointercancel", stop);
    canvas.addEventListener("pointerleave", () => { if (!moving && tell(-1)) repaint(); });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-sign * 6, 0], ArrowRight: [sign * 6, 0], ArrowUp: [0, -6], ArrowDown: [0, 6] };
      if (steps[event.key]) turn(...steps[event.key]);
      else if (event.key === "+" || event.key === "=") zoom(1.15);
      else if (event.key === "-") zoom(1 / 1.15);
      else return;
      event.preventDefault();
      requestAnimationFrame(() => requestAnimationFrame(() => tellAt(side, 0.5, 0.5)));
    });
  });

  for (const name of Object.keys(VIEWS)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => { Object.assign(view, VIEWS[name]); redraw(); });
    element("cortex-buttons").append(button);
  }
  for (const [label, text, factor] of [["Larger", "+", 1.25], ["Smaller", "−", 0.8]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => zoom(factor));
    element("cortex-buttons").append(button);
  }
  Object.values(chosen).forEach((select) => select.addEventListener("change", choose));
  for (const box of [borders, names]) box.addEventListener("change", repaint);

  // Save both hemispheres as they are shown, with their legend, in the resolution of print and on white.
  element("cortex-save").addEventListener("click", () => {
    const [subject, measure, region] = Object.values(chosen).map((select) => Number(select.value));
    const picture = document.createElement("canvas"), [width, height, line] = [1200, 900, 36];
    const context = picture.getContext("2d"), font = `${line}px system-ui, sans-serif`;
    context.font = font;
    let [x, y] = [line, height + 3 * line]; // of the next part of the legend
    const parts = [...element("cortex-legend").querySelectorAll(":scope > span:not(.ends, .hint), .ends > span")].map((part) => {
      const colours = part.className === "scale" ? data.scale : [...part.children].map((square) => square.style.background);
      const size = colours.length > 1 ? 8 : line;
      const wide = Math.ceil(colours.length * size + line / 2 + context.measureText(part.textContent).width);
      if (x + wide > 2 * width) [x, y] = [line, y + 1.5 * line];
      x += wide + line / 2;
      return { text: part.textContent, colours, size, left: x - wide - line / 2, bottom: y };
    });
    Object.assign(picture, { width: 2 * width, height: y + line });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, picture.width, picture.height);
    data.hemispheres.forEach((_, side) => {
      const canvas = document.createElement("canvas");
      const drawn = rasterise(side, view, width, height);
      paint(canvas, drawn, map, side, { borders: borders.checked, marked: -1, names: names.checked && line });
      context.drawImage(canvas, side * width, 1.5 * line);
    });
    context.font = font;
    const write = (text, ...at) => { context.fillStyle = "#000"; context.fillText(text, ...at); };
    const mark = element("simulated")?.firstElementChild.textContent ?? "";
    write(`${mark} ${document.querySelector("h1").textContent}, ${describe(subject, measure, region)}`.trim(), line, 1.2 * line);
    for (const { text, colours, size, left, bottom } of parts) {
      colours.forEach((colour, i) => {
        context.fillStyle = colour;
        context.fillRect(left + i * size, bottom - 0.8 * line, size, line);
      });
      write(text, left + colours.length * size + (colours.length && line / 3), bottom);
    }
    picture.toBlob((blob) => save(`${describe(subject, measure, region).replace(/[^\w-]+/g, "_")}.png`, blob));
  });
  document.querySelectorAll("[data-region]").forEach((button) =>
    button.addEventListener("click", () => {
      chosen.region.value = button.dataset.region;
      choose();
      element("cortex").scrollIntoView();
      chosen.region.focus({ preventScroll: true });
    })
  );
  new ResizeObserver(redraw).observe(canvases[0]);
  choose();

  // On paper, the regions and the chosen measure have a figure each: all subjects in rows, six views in columns.
  const printed = element("cortex-print");
  const PRINTED = [["Lateral", 0], ["Lateral", 1], ["Medial", 0], ["Medial", 1], ["Ventral", 0], ["Ventral", 1]];
  addEventListener("beforeprint", () => {
    printed.replaceChildren();
    const size = [300, 220];
    const drawn = PRINTED.map(([name, side]) => rasterise(side, { ...VIEWS[name], zoom: 1 }, ...size));
    for (const measure of [-1, Math.max(0, Number(chosen.measure.value))]) {
      const shown = data.subjects.map((_, i) => i).filter((i) => measure >= 0 || data.subjects.findIndex((subject) => subject.layout === data.subjects[i].layout) === i);
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = measure < 0 ? "Regions" : data.measures[measure].title;
      const legend = document.createElement("p");
      legend.className = "legend";
      writeLegend(legend, measure, -1);
      const grid = document.createElement("div");
      grid.className = "prints";
      for (const subject of shown) {
        const map = mapOf(subject, measure, -1);
        const name = document.createElement("span");
        const alike = data.subjects.filter((other) => other.layout === data.subjects[subject].layout).map((other) => other.name);
        name.textContent = measure < 0 ? (alike.length === data.subjects.length ? "all" : alike.join(" ")) : data.subjects[subject].name;
        grid.append(name, ...PRINTED.map(([, side], i) => {
          const canvas = document.createElement("canvas");
          paint(canvas, drawn[i], map, side, { borders: false, marked: -1, names: false });
          return canvas;
        }));
      }
      figure.append(caption, legend, grid);
      printed.append(figure);
    }
  });
  addEventListener("afterprint", () => printed.replaceChildren());
})();
