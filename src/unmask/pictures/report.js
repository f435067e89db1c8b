// Motion for pieces that read without it: films of unmasking, maps that are read out, plans to choose, light and dark.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const all = (selector, set) =>
    document.querySelectorAll(`${selector}:not([data-on])`).forEach((node) => {
      node.dataset.on = "";
      set(node);
    });
  const make = (name, className = "", text = "") =>
    Object.assign(document.createElement(name), { className, textContent: text });
  const draw = (name, attributes = {}, text = "") => {
    const node = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
    node.textContent = text;
    return node;
  };

  // --- what a film shows after k calls -------------------------------------------------------------

  const startOf = (item, mask) => (typeof item.b === "number" ? Array(item.b).fill(mask) : item.b.slice());
  const endsOf = (item) => item.n.reduce((ends, size) => [...ends, ends[ends.length - 1] + size], [0]);

  function stateAt(data, item, k) {
    const start = startOf(item, data.mask), values = start.slice();
    const when = start.map((value) => (value === data.mask ? -1 : 0)), sure = start.map(() => -1);
    let at = 0;
    for (let step = 1; step <= k; step++)
      for (let end = at + item.n[step - 1]; at < end; at++) {
        values[item.p[at]] = item.s[at];
        when[item.p[at]] = item.s[at] === data.mask ? -1 : step;
        sure[item.p[at]] = item.c[at];
      }
    return { values, when, sure, step: k };
  }

  const textOf = (data, value) => (value === data.mask ? "_" : data.texts[value] ?? String(value));
  const looks = (state, at) => {
    if (state.when[at] < 0) return "um-masked";
    if (state.when[at] === 0) return "um-given";
    const sure = state.sure[at], level = sure < 0 ? "" : sure < 500 ? " um-q0" : sure < 900 ? " um-q1" : " um-q2";
    return (state.when[at] === state.step ? "um-new" : "um-old") + level;
  };

  // --- kinds ------------------------------------------------------------------------------------------

  const CLASSES = { A: "AVLIMFWC", B: "STNQYG", C: "KRH", D: "DE", E: "P" };
  const classOf = (letter) => Object.keys(CLASSES).find((name) => CLASSES[name].includes(letter)) ?? "";

  function signs(stage, data, item) {
    const length = startOf(item, data.mask).length;
    const cells = Array.from({ length }, () => make("span", "um-cell-sign"));
    const tens = data.kind === "residues" ? 10 : length;
    for (let at = 0; at < length; at += tens) {
      const group = make("span", tens < length ? "um-ten" : "um-run");
      if (tens < length) group.dataset.first = at + 1;
      group.append(...cells.slice(at, at + tens));
      stage.append(group);
    }
    return (state) =>
      cells.forEach((cell, at) => {
        const sign = state.when[at] < 0 ? "" : textOf(data, state.values[at]);
        cell.textContent = state.when[at] < 0 ? "·" : sign === "\n" ? "↵\n" : sign;
        const kind = data.kind === "residues" && sign ? ` um-r${classOf(sign)}` : "";
        cell.className = `um-sign ${looks(state, at)}${kind}`;
        cell.title = titleOf(data, state, at);
      });
  }

  const titleOf = (data, state, at) =>
    state.when[at] > 0
      ? `position ${at + 1}: ${textOf(data, state.values[at])}, call ${state.when[at]}` +
        (state.sure[at] < 0 ? "" : `, probability ${state.sure[at] / 1000}`)
      : `position ${at + 1}: ${state.when[at] < 0 ? "masked" : "given"}`;

  function boxOf(columns) {
    let high = Math.floor(Math.sqrt(columns));
    while (columns % high) high--;
    return [high, columns / high];
  }

  function grid(stage, data, item) {
    const board = make("div", "um-grid"), cells = startOf(item, data.mask).map(() => make("span"));
    const columns = data.columns, [high, wide] = boxOf(columns), boxed = high > 1 && cells.length === columns ** 2;
    const last = (k, size) => boxed && k % size === size - 1 && k < columns - 1;
    const rules = cells.map((_, at) =>
      (last(at % columns, wide) ? " um-right" : "") + (last(Math.floor(at / columns), high) ? " um-low" : ""));
    board.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    board.append(...cells);
    stage.append(board);
    return (state) =>
      cells.forEach((cell, at) => {
        cell.textContent = state.when[at] < 0 ? "" : textOf(data, state.values[at]);
        cell.className = looks(state, at) + rules[at];
        cell.title = titleOf(data, state, at);
      });
  }

  const COLOURS = ["red", "green", "blue"], MASKED = "#31567c", DOT = "#6f93b8", FRAME = "#e69f00";

  function image(stage, data, item) {
    const channels = data.channels ?? 1, columns = data.columns / channels, size = 10;
    const count = Math.ceil(startOf(item, data.mask).length / channels);
    const canvas = make("canvas", "um-image");
    canvas.width = size * columns;
    canvas.height = size * Math.ceil(count / columns);
    stage.append(canvas);
    const brush = canvas.getContext("2d");
    const level = (state, at) => Math.round(255 * (state.when[at] < 0 ? 0.5 : state.values[at] / Math.max(data.levels, 1)));
    const paint = (colour, x, y, side) => ((brush.fillStyle = colour), brush.fillRect(x, y, side, side));
    return (state) => {
      for (let pixel = 0; pixel < count; pixel++) {
        const x = size * (pixel % columns), y = size * Math.floor(pixel / columns);
        const own = Array.from({ length: channels }, (_, channel) => channels * pixel + channel);
        const open = own.filter((at) => state.when[at] < 0).length;
        const [red, green = red, blue = red] = own.map((at) => level(state, at));
        paint(open === channels ? MASKED : `rgb(${red},${green},${blue})`, x, y, size);
        if (open && open < channels) paint(MASKED, x + 3, y + 3, 4);
        if (open) paint(DOT, x + 4, y + 4, 2);
        if (!state.step || own.every((at) => state.when[at] !== state.step)) continue;
        brush.lineWidth = 2;
        brush.strokeStyle = FRAME;
        brush.strokeRect(x + 1, y + 1, size - 2, size - 2);
      }
    };
  }

  function molecule(stage, data, item) {
    const line = make("div", "um-smiles");
    const update = signs(line, data, item), shape = item.m;
    stage.append(line);
    if (!shape) {
      stage.append(make("p", "um-note", "Not a molecule that can be drawn."));
      return update;
    }
    const [low, high] = [Math.min, Math.max];
    const left = low(...shape.x) - 60, top = low(...shape.y) - 60;
    const box = [left, top, high(...shape.x) + 60 - left, high(...shape.y) + 60 - top].join(" ");
    const picture = draw("svg", { viewBox: box, class: "um-molecule", "aria-hidden": "true" });
    const bonds = shape.b.map(([a, b, order]) => bond(shape, a, b, order));
    const atoms = shape.x.map((x, k) => atom(x, shape.y[k], shape.l[k]));
    picture.append(...bonds, ...atoms);
    stage.append(picture);
    return (state) => {
      update(state);
      const known = shape.p.map((at) => state.when[at] >= 0);
      const fresh = shape.p.map((at) => state.when[at] === state.step && state.step > 0);
      atoms.forEach((node, k) => node.setAttribute("class", known[k] ? (fresh[k] ? "um-fresh" : "um-there") : "um-open"));
      bonds.forEach((node, k) =>
        node.setAttribute("class", known[shape.b[k][0]] && known[shape.b[k][1]] ? "um-there" : "um-open"));
    };
  }

  function bond(shape, a, b, order) {
    const group = draw("g");
    const [dx, dy] = [shape.x[b] - shape.x[a], shape.y[b] - shape.y[a]], size = Math.hypot(dx, dy) || 1;
    for (let k = 0; k < order; k++) {
      const aside = 14 * (k - (order - 1) / 2), [sx, sy] = [(-dy / size) * aside, (dx / size) * aside];
      group.append(draw("line", { x1: shape.x[a] + sx, y1: shape.y[a] + sy, x2: shape.x[b] + sx, y2: shape.y[b] + sy }));
    }
    return group;
  }

  function atom(x, y, label) {
    const group = draw("g");
    group.append(draw("circle", { cx: x, cy: y, r: label ? 26 : 12 }));
    if (label) group.append(draw("text", { x, y: y + 13, "text-anchor": "middle" }, label));
    return group;
  }

  const KINDS = { text: signs, residues: signs, symbols: signs, grid, image, molecule };

  // --- what was unmasked, in words, and along the calls -------------------------------------------------

  function placeOf(data, at) {
    if (!data.columns) return `position ${at + 1}`;
    const channels = data.channels ?? 1, column = at % data.columns;
    const colour = channels > 1 ? `, ${COLOURS[column % channels]}` : "";
    return `row ${Math.floor(at / data.columns) + 1}, column ${Math.floor(column / channels) + 1}${colour}`;
  }

  function words(data, item, ends, k) {
    if (!k) return `Start: ${startOf(item, data.mask).filter((value) => value === data.mask).length} masked, ${item.n.length} calls to come.`;
    const from = ends[k - 1], to = ends[k], some = [];
    for (let at = from; at < Math.min(to, from + 4); at++) {
      const place = placeOf(data, item.p[at]);
      const entropy = item.e && item.e[at] >= 0 ? `, entropy ${item.e[at] / 100} nats` : "";
      const sign = item.s[at] === data.mask ? "hidden again" : `“${textOf(data, item.s[at])}”`;
      const sure = item.c[at] < 0 ? "" : ` (probability ${item.c[at] / 1000}${entropy})`;
      some.push(`${place} ${sign}${sure}`);
    }
    const more = to - from > 4 ? `; ${to - from - 4} more` : to === from ? "nothing" : "";
    return `Call ${k} of ${item.n.length}: ${some.join("; ")}${more}.`;
  }

  function along(item, ends, go) {
    const mean = (values) => item.n.map((size, k) => {
      const part = values.slice(ends[k], ends[k + 1]).filter((value) => value >= 0);
      return part.length ? part.reduce((a, b) => a + b, 0) / part.length : -1;
    });
    const least = item.n.map((size, k) => Math.min(...item.c.slice(ends[k], ends[k + 1]).filter((v) => v >= 0), 1000));
    const single = item.n.every((size) => size <= 1), about = "probability of what was unmasked";
    const charts = single
      ? [strip(about, [mean(item.c)], 1000, 1000, go)]
      : [strip(`${about}: mean of the call, and (dashed) the least`, [mean(item.c), least], 1000, 1000, go)];
    if (item.e) {
      const values = mean(item.e);
      charts.push(strip(`entropy before it, nats${single ? "" : ": mean of the call"}`, [values], 100, Math.max(...values, 1), go));
    }
    return charts;
  }

  function strip(title, series, unit, top, go) {
    const width = 480, height = 84, left = 40, count = series[0].length;
    const x = (k) => left + ((width - left - 8) * (k + 0.5)) / count, y = (v) => height - 14 - ((height - 24) * v) / top;
    const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, class: "um-strip" });
    const axes = draw("g", { class: "um-axes" });
    [0, top].forEach((value) => {
      axes.append(draw("line", { x1: left, x2: width - 8, y1: y(value), y2: y(value) }));
      axes.append(draw("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, Number((value / unit).toPrecision(2))));
    });
    axes.append(draw("text", { x: width - 8, y: height - 2, "text-anchor": "end" }, "calls"));
    picture.append(axes);
    series.forEach((values, n) => {
      const points = values.map((v, k) => (v < 0 ? null : `${x(k).toFixed(1)} ${y(v).toFixed(1)}`)).filter(Boolean);
      const group = draw("g", { class: `um-series um-s${n ? 1 : 0}` });
      group.append(draw("path", { class: "um-line", d: points.length ? `M${points.join("L")}` : "" }));
      if (count <= 40 && !n) values.forEach((v, k) => v >= 0 && group.append(draw("circle", { cx: x(k), cy: y(v), r: 2.6, class: "um-mark" })));
      picture.append(group);
    });
    const cursor = draw("line", { class: "um-now", y1: 2, y2: height - 12 });
    picture.append(cursor);
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      const at = (((event.clientX - box.left) / box.width) * width - left) / ((width - left - 8) / count);
      go(Math.min(Math.max(Math.floor(at) + 1, 0), count));
    });
    const node = make("div", "um-strip-box");
    node.append(make("p", "um-strip-title", title), picture);
    return { node, at: (k) => [1, 2].forEach((end) => cursor.setAttribute(`x${end}`, k ? x(k - 1) : left)) };
  }

  // --- the film: stage and controls -----------------------------------------------------------------------

  function film(box) {
    const data = JSON.parse(box.parentNode.querySelector(".um-data").textContent);
    const [stage, controls, said, below] = [".um-stage", ".um-controls", ".um-said", ".um-along"].map((name) => box.querySelector(name));
    const slider = controls.querySelector("input"), choice = controls.querySelector(".um-items"), pace = controls.querySelector(".um-pace"), title = box.parentNode.querySelector("figcaption").textContent;
    const play = controls.querySelector("[data-do=play]");
    let item, ends, update, strips, step = 0, timer = 0;

    function show(k) {
      step = Math.min(Math.max(k, 0), item.n.length);
      const state = stateAt(data, item, step);
      update(state);
      strips.forEach((strip) => strip.at(step));
      slider.value = step;
      slider.setAttribute("aria-valuetext", `call ${step} of ${item.n.length}`);
      said.textContent = words(data, item, ends, step);
      const masked = state.when.filter((when) => when < 0).length;
      const reads = data.kind === "image" ? "" : ": " + state.values.map((value) => textOf(data, value)).join(data.kind === "symbols" ? " " : "");
      stage.setAttribute("aria-label", `${title}, ${masked} masked${reads}`);
      box.dataset.step = step;
    }
    function name(button, label, path) {
      button.setAttribute("aria-label", label);
      button.title = label;
      button.querySelector("path").setAttribute("d", path);
    }
    function stop() {
      clearInterval(timer);
      timer = 0;
      said.setAttribute("aria-live", "polite");
      name(play, "Play", "M5 3l8 5-8 5Z");
    }
    function start() {
      if (step === item.n.length) show(0);
      said.setAttribute("aria-live", "off");
      name(play, "Pause", "M5 3v10M11 3v10");
      const wait = Math.min(Math.max(5000 / item.n.length, 30), 500) / Number(pace.value);
      timer = setInterval(() => (step < item.n.length ? show(step + 1) : stop()), wait);
    }
    function hurry(more) {
      pace.selectedIndex = Math.min(Math.max(pace.selectedIndex + more, 0), pace.length - 1);
      if (timer) clearInterval(timer), start();
    }
    function take(number) {
      stop();
      item = data.items[number];
      ends = endsOf(item);
      stage.replaceChildren();
      stage.className = `um-stage um-${data.kind}`;
      update = (KINDS[data.kind] ?? signs)(stage, data, item);
      slider.max = item.n.length;
      strips = item.n.length ? along(item, ends, go) : [];
      below.replaceChildren(...strips.map((strip) => strip.node));
      show(item.n.length);
    }
    const go = (k) => (stop(), show(k));
    const DO = {
      first: () => go(0), back: () => go(step - 1), next: () => go(step + 1), last: () => go(item.n.length),
      play: () => (timer ? stop() : start()), faster: () => hurry(1), slower: () => hurry(-1),
    };
    const KEYS = { " ": "play", ArrowRight: "next", ArrowLeft: "back", Home: "first", End: "last", "+": "faster", "-": "slower" };
    controls.addEventListener("click", (event) => DO[event.target.closest("button")?.dataset.do]?.());
    slider.addEventListener("input", () => go(Number(slider.value)));
    choice?.addEventListener("change", () => take(choice.selectedIndex));
    pace.addEventListener("change", () => hurry(0));
    box.addEventListener("keydown", (event) => {
      const own = event.target.tagName === "SELECT" || (event.target.tagName === "BUTTON" && event.key === " ");
      if (own || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
      event.preventDefault();
      DO[KEYS[event.key]]();
    });
    if (!data.items.length) return;
    controls.hidden = false;
    take(0);
  }

  // --- maps, plans, light and dark -----------------------------------------------------------------------

  function map(board) {
    const values = board.dataset.values.split(" "), columns = Number(board.dataset.columns), width = Number(board.dataset.width);
    const cursor = board.querySelector(".um-cursor"), read = board.nextElementSibling, rows = values.length / columns;
    let row = 0, column = 0;
    function show() {
      cursor.style.display = "";
      cursor.setAttribute("x", 10 * column);
      cursor.setAttribute("y", 10 * row);
      const value = values[row * columns + column];
      const last = (column + 1) * width, first = last - width + 1;
      const place = width
        ? `Tenth ${row + 1} of the way, ${width > 1 ? `positions ${first} to ${last}` : `position ${last}`}`
        : `Row ${row + 1}, column ${column + 1}`;
      const said = value === undefined || value === "-" ? "given" : `${value} ${board.dataset.unit}`;
      read.textContent = `${place}: ${said}.`;
    }
    const MOVES = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    board.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move) return;
      event.preventDefault();
      row = Math.min(Math.max(row + move[0], 0), Math.ceil(rows) - 1);
      column = Math.min(Math.max(column + move[1], 0), columns - 1);
      show();
    });
    board.addEventListener("pointermove", (event) => {
      const box = board.querySelector("svg").getBoundingClientRect();
      const size = box.width / (10 * columns + 2);
      [column, row] = [event.clientX - box.left, event.clientY - box.top].map((v) => Math.floor((v / size - 1) / 10));
      if (column >= 0 && column < columns && row >= 0 && row < rows) show();
    });
  }

  function plans(choice) {
    const groups = choice.closest("figure").querySelectorAll(".um-plan");
    choice.addEventListener("change", () =>
      groups.forEach((group, k) => (group.style.display = k === choice.selectedIndex ? "" : "none")));
  }

  function theme(button) {
    const root = document.body, NAMES = ["system", "light", "dark"];
    let name = "system";
    try { name = localStorage.getItem("unmask-theme") ?? name; } catch { /* storage may be closed */ }
    const show = () => {
      root.dataset.theme = name;
      button.textContent = `Theme: ${name}`;
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      name = NAMES[(NAMES.indexOf(name) + 1) % 3];
      try { localStorage.setItem("unmask-theme", name); } catch { /* likewise */ }
      show();
    });
    show();
  }

  all(".um-film", film);
  all(".um-map", map);
  all("select.um-plans", plans);
  all("button.um-theme", theme);
})();
