"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("charts");
  const narrow = 560;
  const paper = 680;
  let printing = false;

  // Charts: colours are named after CSS variables and take their value when drawn, so that both schemes are served.
  const resolve = (value, css) => {
    if (/^var\(--[\w-]+\)$/.test(value)) return css.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return value.map((part) => resolve(part, css));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, resolve(part, css)]));
    }
    return value;
  };
  const twoLines = (label) => {
    const spaces = [...label.matchAll(/ /g)].map((match) => match.index);
    if (label.length < 12 || !spaces.length) return label;
    const middle = label.includes(" − ") ? label.indexOf(" − ") + 2 : label.length / 2;
    const cut = spaces.reduce((best, at) => (Math.abs(at - middle) < Math.abs(best - middle) ? at : best));
    return `${label.slice(0, cut)}<br>${label.slice(cut + 1)}`;
  };
  const draw = (place) => {
    const figure = figures[place.dataset.chart];
    const { data, layout } = resolve(figure, getComputedStyle(document.documentElement));
    layout.width = printing ? (paper * place.clientWidth) / document.querySelector("main").clientWidth : place.clientWidth;
    if (layout.width < narrow) {
      layout.font.size = 11;
      layout.showlegend = false;
      if (layout.yaxis.ticktext) layout.yaxis.ticktext = layout.yaxis.ticktext.map(twoLines);
      const below = layout.xaxis.title;
      if (below.text && below.text.length * 7 > layout.width) below.text = twoLines(below.text);
    }
    const options = {
      displaylogo: false,
      modeBarButtons: [["toImage"]],
      toImageButtonOptions: { format: "svg", filename: place.dataset.chart.replace(/[^\w-]+/g, "-") },
    };
    Plotly.react(place, data, layout, options);
    if (!place.dataset.drawn && place.dataset.chart === "prompts") {
      place.on("plotly_click", (event) => browser.open(event.points[0].customdata));
    }
    place.dataset.drawn = layout.width;
  };
  const plots = [...document.querySelectorAll(".plot")];
  const resized = new ResizeObserver((seen) =>
    seen.map((one) => one.target).filter((place) => Number(place.dataset.drawn) !== place.clientWidth).forEach(draw));
  const drawAll = (left) => {
    if (!left.length) return;
    draw(left[0]);
    resized.observe(left[0]);
    setTimeout(drawAll, 0, left.slice(1)); // one chart at a time, from the top, so that the page answers meanwhile
  };
  const redraw = () => plots.filter((place) => place.dataset.drawn).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    printing = true;
    document.documentElement.classList.add("paper");
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
    plots.forEach(draw);
  });
  addEventListener("afterprint", () => {
    printing = false;
    document.documentElement.classList.remove("paper");
    redraw();
  });

  // Text that models wrote is only ever set as text. Control characters become pictures of themselves, and those that
  // would turn the direction of what follows become their numbers.
  const visible = (text) =>
    text
      .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
      .replace(/[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, (c) => `\u27e8U+${c.charCodeAt(0).toString(16).padStart(4, "0")}\u27e9`);
  const make = (tag, style, text) => {
    const element = document.createElement(tag);
    element.className = style;
    if (text !== undefined) element.textContent = visible(text);
    return element;
  };
  const fixed = (value) => (value === null ? "–" : value.toFixed(2).replace("-", Number(value.toFixed(2)) === 0 ? "" : "−"));

  const browse = (root) => {
    const { arms, prompts } = read("items");
    const form = root.querySelector("form");
    const control = form.elements;
    const start = Math.max(0, arms.findIndex((arm) => arm.label === root.dataset.start));
    const means = (prompt) => prompt.answers.filter((answer) => answer && answer[6] !== null).map((answer) => answer[6]);
    const spread = (prompt) => Math.max(...means(prompt)) - Math.min(...means(prompt));
    const orders = {
      file: () => 0,
      spread: (a, b) => spread(b) - spread(a),
      lowest: (a, b) => Math.min(...means(a)) - Math.min(...means(b)),
    };
    const haystacks = prompts.map((p) => [p.id, p.text, ...p.answers.map((a) => (a ? a[0] : ""))].join("\n").toLowerCase());
    const index = new Map(prompts.map((prompt, number) => [prompt, number]));
    let listed = prompts;
    let at = 0;

    const gain = (answer, reference) => {
      if (!reference || answer === reference || answer[1] === null || reference[1] === null) return null;
      const size = Number((answer[1] - reference[1]).toFixed(2));
      if (size === 0) return make("span", "", `as ${arms[start].label}`);
      return make("span", size > 0 ? "up" : "down", `${size > 0 ? "▲ +" : "▼ "}${fixed(size)} against ${arms[start].label}`);
    };
    const card = (arm, answer, reference) => {
      const box = make("article", `card ${arm.method}`);
      box.append(make("h4", "", arm.label));
      if (!answer) {
        box.append(make("p", "text nothing", "no response"));
        return box;
      }
      const [response, gold, proxy, length, ended, truncated, mean] = answer;
      const score = make("p", "score");
      score.append(make("span", "value", `gold ${fixed(gold)}`), gain(answer, reference) ?? "");
      const body = response ? make("p", "text", response) : make("p", "text nothing", "(empty response)");
      body.dir = "auto";
      const foot = make("footer", "");
      foot.append(make("span", "", `proxy ${fixed(proxy)}`), make("span", "", `gold on average ${fixed(mean)}`));
      if (length !== null) foot.append(make("span", "", `${length} tokens`));
      if (truncated) foot.append(make("span", "cut", "cut at the limit"));
      else if (ended === false) foot.append(make("span", "cut", "did not end"));
      box.append(score, body, foot);
      return box;
    };
    const show = () => {
      const prompt = listed[at];
      control.place.value = prompt ? `${at + 1} of ${listed.length}` : "none";
      control.previous.disabled = at === 0;
      control.next.disabled = at >= listed.length - 1;
      root.querySelector(".kicker").textContent = prompt ? visible(`${prompt.family.replaceAll("_", " ")} · prompt ${prompt.id}`) : "";
      root.querySelector(".prompt .text").textContent = prompt ? visible(prompt.text) : "No prompt matches.";
      const cards = prompt ? arms.map((arm, n) => card(arm, prompt.answers[n], prompt.answers[start])) : [];
      root.querySelector(".cards").replaceChildren(...cards);
    };
    const list = () => {
      const wanted = control.search.value.trim().toLowerCase();
      const family = control.family.value;
      listed = prompts
        .filter((prompt) => (!family || prompt.family === family) && haystacks[index.get(prompt)].includes(wanted))
        .sort(orders[control.order.value]);
      at = 0;
      show();
    };
    const move = (by) => {
      at = Math.min(Math.max(at + by, 0), Math.max(listed.length - 1, 0));
      show();
    };
    for (const family of [...new Set(prompts.map((prompt) => prompt.family))].sort()) {
      control.family.append(new Option(visible(family.replaceAll("_", " ")), family));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", list);
    control.previous.addEventListener("click", () => move(-1));
    control.next.addEventListener("click", () => move(1));
    list();
    return {
      open(id) {
        form.reset();
        list();
        at = Math.max(0, listed.findIndex((prompt) => prompt.id === id));
        show();
        document.getElementById("responses").scrollIntoView();
      },
    };
  };
  const browser = browse(document.getElementById("browser"));
  drawAll(plots);

  // The table of contents follows the reader.
  const links = new Map([...document.querySelectorAll("nav a:not(.home)")].map((link) => [link.hash.slice(1), link]));
  const follow = new IntersectionObserver(
    (seen) => seen.filter((one) => one.isIntersecting).forEach((one) => {
      links.forEach((link) => link.classList.remove("here"));
      links.get(one.target.id).classList.add("here");
    }),
    { rootMargin: "-20% 0px -75% 0px" },
  );
  links.forEach((_, id) => follow.observe(document.getElementById(id)));

  const copy = document.getElementById("copy");
  copy.hidden = !navigator.clipboard;
  copy.addEventListener("click", () => {
    navigator.clipboard.writeText(copy.previousElementSibling.textContent).then(() => { copy.textContent = "Copied"; });
  });
})();
