// Lines over time: own SVG, with a cursor for the pointer and for the arrow keys.

const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes, content) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (content) node.textContent = content;
  return node;
}

const MINUTES = [30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200];

/** Four marks from 0 to `top` or more: of 1, 2 or 5 times a power of ten; of times, of full minutes, hours or days. */
function ticks(top, least, isTime) {
  const wanted = Math.max(top, least) / 3;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const decimal = power * [1, 2, 5, 10].find((n) => n * power >= wanted);
  const step = isTime && wanted > 20 ? MINUTES.find((n) => n >= wanted) ?? Math.ceil(wanted / 86400) * 86400 : decimal;
  return [0, 1, 2, 3].map((n) => n * step);
}

class Chart {
  /** `series`: what each is called, and its value in a point. */
  constructor(figure, { title, series, unit, least }) {
    Object.assign(this, { figure, title, series, unit, least, points: [], cursor: null });
    this.svg = shape("svg", { role: "img", tabindex: "0" });
    figure.append(this.svg);
    new ResizeObserver(() => this.draw()).observe(figure);
    const pointed = (event) => this.point(event.clientX - this.svg.getBoundingClientRect().left);
    this.svg.addEventListener("pointermove", pointed);
    this.svg.addEventListener("pointerdown", pointed);
    const leave = () => { this.cursor = null; this.draw(); };
    this.svg.addEventListener("pointerleave", leave);
    this.svg.addEventListener("blur", leave);
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  show(points, begin, end, gap) {
    Object.assign(this, { points, begin, end, gap });
    this.draw();
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 };
    if (!(event.key in steps) || this.points.length === 0) return;
    event.preventDefault();
    const last = this.points.length - 1;
    const from = this.cursor === null ? last : this.points.findIndex((p) => p.at >= this.cursor);
    this.cursor = this.points[Math.min(last, Math.max(0, (from < 0 ? last : from) + steps[event.key]))].at;
    this.draw();
    write(at("said"), this.reading(this.nearest()));
  }

  point(x) {
    const wanted = this.begin + ((x - this.left) / (this.right - this.left)) * (this.end - this.begin);
    const nearer = (a, b) => (Math.abs(b.at - wanted) < Math.abs(a.at - wanted) ? b : a);
    this.cursor = this.points.length ? this.points.reduce(nearer).at : null;
    this.draw();
  }

  nearest() {
    return this.cursor === null ? undefined : this.points.find((p) => p.at >= this.cursor);
  }

  reading(point) {
    const values = this.series.map(({ name, of }) => `${name} ${text(this.unit(of(point)))}`);
    return `${clock.format(point.at * 1000)}: ${values.join(", ")}`;
  }

  caption(most) {
    const now = this.nearest();
    const last = now ?? this.points.at(-1);
    const head = element("b", "", now ? `${this.title} at ${clock.format(now.at * 1000)}` : this.title);
    const values = this.series.map(({ name, of, kind }) =>
      element("i", kind, `${name} ${last ? text(this.unit(of(last))) : DASH}`));
    const peak = now || !last ? [] : [element("span", "most", `most ${text(this.unit(most))}`)];
    this.figure.querySelector("figcaption").replaceChildren(head, ...values, ...peak);
    const length = lasting(this.end - this.begin);
    this.svg.setAttribute("aria-label", last
      ? `${this.title}, the last ${length}: now ${this.reading(last)}; most ${text(this.unit(most))}`
      : `${this.title}, the last ${length}: nothing is known yet`);
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!width || !this.end) return;
    const values = this.points.flatMap((p) => this.series.map(({ of }) => of(p)).filter(known));
    const most = values.length ? values.reduce((a, b) => Math.max(a, b)) : 0;
    const marks = ticks(most, this.least, this.unit === seconds);
    const labels = marks.map((mark) => text(this.unit(mark)));
    Object.assign(this, { left: 10 + 6.4 * Math.max(...labels.map((l) => l.length)), right: width - 4 });
    const top = 10, bottom = height - 22;
    const x = (time) => this.left + ((time - this.begin) / (this.end - this.begin)) * (this.right - this.left);
    const y = (value) => bottom - (value / marks.at(-1)) * (bottom - top);
    const nodes = marks.flatMap((mark, i) => [
      shape("line", { class: "grid", x1: this.left, x2: this.right, y1: y(mark), y2: y(mark) }),
      shape("text", { x: this.left - 7, y: y(mark) + 4, "text-anchor": "end" }, labels[i]),
    ]);
    const [step, times] = this.times((this.right - this.left) / 85);
    for (const time of times) {
      nodes.push(shape("text", { x: x(time), y: height - 5, "text-anchor": "middle" }, (step < 60 ? clock : minute).format(time * 1000)));
    }
    for (const { of, kind } of this.series) nodes.push(...this.line(of, kind, x, y, bottom));
    const now = this.nearest();
    if (now) {
      nodes.push(shape("line", { class: "cursor", x1: x(now.at), x2: x(now.at), y1: top, y2: bottom }));
      for (const { of, kind } of this.series.filter(({ of }) => known(of(now)))) {
        nodes.push(shape("circle", { class: `spot ${kind}`, cx: x(now.at), cy: y(of(now)), r: 3.5 }));
      }
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...nodes);
    this.caption(most);
  }

  /** A step of full minutes or hours, and the times that it gives: at most so many. */
  times(most) {
    const step = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600].find((s) => (this.end - this.begin) / s <= most) ?? 43200;
    const zone = new Date().getTimezoneOffset() * 60;
    const times = [];
    for (let time = Math.ceil((this.begin - zone) / step) * step + zone; time < this.end; time += step) times.push(time);
    const edge = (this.end - this.begin) * 0.035;
    return [step, times.filter((time) => time > this.begin + edge && time < this.end - edge)];
  }

  /** A line with its area; broken where nothing is known. */
  line(of, kind, x, y, bottom) {
    const runs = [];
    let before = null;
    for (const point of this.points) {
      const value = of(point);
      if (!known(value)) { before = null; continue; }
      if (before === null || point.at - before > this.gap) runs.push([]);
      runs.at(-1).push([x(point.at).toFixed(1), y(value).toFixed(1)]);
      before = point.at;
    }
    return runs.flatMap((run) => {
      const path = `M${run.map((p) => p.join(" ")).join("L")}`;
      const dot = run.length === 1 ? "h0.1" : "";
      return [
        shape("path", { class: `area ${kind}`, d: `${path}L${run.at(-1)[0]} ${bottom}L${run[0][0]} ${bottom}Z` }),
        shape("path", { class: `line ${kind}`, d: path + dot }),
      ];
    });
  }
}
