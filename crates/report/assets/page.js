"use strict";
(() => {
  const one = (id) => document.getElementById(id);
  const all = (what, where) => [...(where || document).querySelectorAll(what)];
  // Everything from the data is set as text: nothing of it is ever parsed as markup.
  const make = (tag, fields, ...inside) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(fields || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") node.addEventListener("click", value);
      else node.setAttribute(name, value);
    }
    node.append(...inside.flat(9).filter((each) => each !== null && each !== undefined && each !== false));
    return node;
  };
  const { file, page } = JSON.parse(one("data").textContent);
  const ways = page.kind === "ways";
  const text = (number) => (number === null || number === undefined ? "" : page.texts[number]);
  // What stands between backticks is code.
  const marked = (sentence) => {
    const parts = sentence.split("`");
    return parts.length % 2 ? parts.map((part, at) => (at % 2 ? make("code", {}, part) : part)) : [sentence];
  };
  const panel = one("panel"), picture = one("picture"), find = one("find"), shown = one("shown");
  const rows = all("tr.way");
  const key = ways ? "f" : "k";
  const number = (node) => (node && node.dataset[key] !== undefined ? Number(node.dataset[key]) : null);
  const state = { chosen: null, fate: "", group: "" };

  // Theme.
  const root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const remember = (use) => { try { return use(localStorage); } catch { return null; } };
  const kept = remember((store) => store.getItem("cpusieve-theme"));
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  const themed = () => { one("theme").textContent = dark() ? "Light" : "Dark"; };
  one("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remember((store) => store.setItem("cpusieve-theme", root.dataset.theme));
    themed();
  });
  themed();

  // The answer's JSON, and paper.
  const answer = async () => {
    const held = one("answer");
    if (held.type === "application/json") return held.textContent;
    const bytes = Uint8Array.from(atob(held.textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  one("save").addEventListener("click", async () => {
    const pretty = JSON.stringify(JSON.parse(await answer()), null, 2);
    const link = make("a", { download: file, href: URL.createObjectURL(new Blob([pretty], { type: "application/json" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  });
  one("print").addEventListener("click", () => print());

  // A chart has nothing to choose.
  if (page.kind === "chart") return;

  // What is searched: names in every system, the bit, the rule; of hosts, what they lack.
  const words = (ways ? page.features : page.kinds).map((each) => {
    if (!ways) return [...each.h, each.v, ...each.l.map((at) => page.features[at].n)].join("\n").toLowerCase();
    const why = each.c ? [text(each.c.rule), text(each.c.title), text(each.c.cite)] : [];
    const names = (each.a || []).map(([, name]) => text(name));
    return [each.n, each.b || "", text(each.t), ...why, ...names].join("\n").toLowerCase();
  });
  const groups = new Map();
  if (ways) for (const each of page.sections) for (const at of each.m) groups.set(at, each.g);

  const filter = () => {
    const asked = find.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    const inside = new Set();
    for (const row of rows) {
      const at = number(row);
      const fits = asked.every((word) => words[at].includes(word)) && (!state.fate || page.features[at].f === state.fate)
        && (!state.group || member(state.group, at));
      row.hidden = !fits;
      if (fits) { count += 1; inside.add(at); }
    }
    for (const body of all("#features tbody")) body.hidden = !all("tr.way", body).some((row) => !row.hidden);
    const narrowed = asked.length > 0 || state.fate || state.group;
    for (const each of all("#picture tspan[data-f]")) each.classList.toggle("out", Boolean(narrowed) && !inside.has(Number(each.dataset.f)));
    for (const each of all("#picture .host")) each.classList.toggle("out", Boolean(narrowed) && !inside.has(number(each)));
    const what = ways ? "features" : "kinds";
    shown.textContent = narrowed ? `${count} of ${rows.length} ${what}` : `${count} ${what}`;
    return narrowed;
  };
  const members = new Map();
  for (const group of all("#picture .group")) members.set(group.dataset.g, JSON.parse(group.dataset.m || "[]"));
  const member = (group, at) => (members.get(group) || []).includes(at);
  const visible = () => rows.filter((row) => !row.hidden);

  // The panel.
  const section = (title, ...inside) => [make("h3", {}, title), ...inside];
  const flags = (list) => make("p", { class: "flags" }, list.map((name) => [make("code", {}, name), " "]));
  const stage = (name) => (page.stages.find(([id]) => id === name) || [name, name])[1];
  const cause = (why) => [
    make("p", { class: "what" }, text(why.title)),
    why.follows && make("p", {}, "It follows from ", make("code", {}, why.follows), "."),
    make("p", {}, marked(text(why.text))),
    make("p", { class: "cite" }, [why.sure, text(why.rule)].filter(Boolean).join(" · "), " ", make("code", {}, text(why.cite))),
    why.remedy && make("div", { class: "fix" },
      make("p", { class: why.remedy[0] ? "remedy" : "quiet" }, why.remedy[0] ? [] : "Remedy: ", marked(text(why.remedy[1]))),
      why.cpu && make("p", {}, make("code", {}, `-cpu ${why.cpu}`))),
    ...(why.others.length ? section("Or, perhaps", why.others.map(([at, why, cite, rule]) =>
      make("p", {}, `${stage(at)}: ${text(why)} `, make("span", { class: "cite" }, `${rule} ${text(cite)}`)))) : []),
  ];
  const steps = (list) => make("ol", {}, list.map(([at, effect, rule, cite, because]) => make("li", { class: `s-${at}` },
    make("b", {}, stage(at)), ` ${effect} `, make("span", { class: "quiet" }, text(rule)),
    cite !== null && make("p", { class: "cite" }, make("code", {}, text(cite))),
    because.map((seen) => make("p", { class: "cite" }, `seen: ${text(seen)}`)))));
  const table = (pairs) => make("table", {}, make("tbody", {}, pairs.map(([system, name]) =>
    make("tr", {}, make("td", {}, system), make("td", {}, make("code", {}, name))))));
  const close = make("button", { class: "close", type: "button", "aria-label": "Close", on: () => choose(null) }, "✕");
  const fill = (...inside) => {
    panel.replaceChildren(close, ...inside.flat(9).filter(Boolean));
    panel.hidden = false;
    document.body.classList.add("with-panel");
    panel.scrollTop = 0;
  };
  const feature = (each) => fill(
    make("h2", {}, each.n), each.t !== null && make("p", { class: "quiet" }, text(each.t)), each.b && make("p", { class: "cite" }, make("code", {}, each.b)),
    make("span", { class: `tag ${each.f}` }, each.f), each.c && each.c.at && make("span", { class: `tag s-${each.c.at}` }, stage(each.c.at)),
    each.c && cause(each.c),
    each.e ? section(`Began at ${stage(each.e.at)}`, cause(each.e)) : [],
    each.p ? section("Worth", make("p", {}, each.p)) : [],
    each.s.length ? section("Steps", steps(each.s)) : [],
    each.a && each.a.length ? section("Names", table(each.a.map(([system, name]) => [text(system), text(name)]))) : []);
  const host = (each) => {
    const lacks = each.l.map((at) => page.features[at].n);
    const alone = each.a.map((at) => page.features[at].n);
    const has = page.features.filter((_, at) => !each.l.includes(at)).map((known) => known.n);
    fill(make("h2", {}, each.n), make("p", { class: "quiet" }, `${each.v}, ${each.h.length} of ${page.hosts} hosts`),
      alone.length ? section(`Takes ${alone.length} from everybody, alone`, flags(alone)) : [],
      lacks.length ? section(`Lacks ${lacks.length} that others have`, flags(lacks)) : [],
      has.length ? section(`Has ${has.length} beyond every host's`, flags(has)) : [],
      section("Hosts", make("p", {}, each.h.join(", "))));
  };
  const column = (list) => {
    const known = list.map((at) => page.features[at]);
    const without = page.kinds.filter((kind) => kind.l.includes(list[0]));
    const lacking = without.reduce((sum, kind) => sum + kind.h.length, 0);
    fill(make("h2", {}, known.length === 1 ? known[0].n : `${known[0].n} +${known.length - 1}`),
      make("p", { class: "quiet" }, `on ${page.hosts - lacking} of ${page.hosts} hosts`),
      known.map((each) => section(each.n, each.t && make("p", {}, each.t), each.b && make("p", { class: "cite" }, make("code", {}, each.b)),
        each.a && table(each.a))),
      section(`Missing on ${lacking} hosts`, make("p", {}, without.map((kind) => kind.n).join(", "))));
  };

  const mark = (at, group) => {
    for (const row of rows) row.setAttribute("aria-selected", String(number(row) === at));
    for (const each of all("#picture [data-f].on, code.on, #picture .host.on, #picture .column.on")) each.classList.remove("on");
    if (at !== null) for (const each of all(`#picture [data-${key}="${at}"], code[data-${key}="${at}"]`)) each.classList.add("on");
    if (!ways) return;
    const on = all("#picture .group").filter((each) => (group ? each.dataset.g === group : at !== null && member(each.dataset.g, at)));
    picture.classList.toggle("dim", on.length > 0);
    for (const each of all("#picture .group")) each.classList.toggle("on", on.includes(each));
  };
  let opener = null;
  const choose = (at, from) => {
    state.chosen = at;
    mark(at);
    if (at === null) {
      panel.hidden = true;
      document.body.classList.remove("with-panel");
      if (opener && opener.isConnected) opener.focus({ preventScroll: true });
      opener = null;
      return;
    }
    opener = from || opener;
    if (ways) feature(page.features[at]); else host(page.kinds[at]);
    const name = ways ? page.features[at].n : page.kinds[at].n;
    remember(() => history.replaceState(null, "", `#${key}=${encodeURIComponent(name)}`));
  };
  const narrow = (group) => {
    state.group = state.group === group ? "" : group;
    if (state.group) { state.fate = ""; chips(); }
    filter();
    mark(null, state.group);
  };
  const chips = () => { for (const each of all("[data-fate]")) each.setAttribute("aria-pressed", String(each.dataset.fate === state.fate)); };
  const clear = () => { find.value = ""; state.fate = ""; state.group = ""; chips(); filter(); mark(state.chosen); };

  // By hand.
  let dragged = false;
  document.addEventListener("click", (event) => {
    const target = event.target;
    if (dragged) return;
    const chip = target.closest("[data-fate]");
    if (chip) { state.fate = chip.dataset.fate; state.group = ""; chips(); filter(); mark(state.chosen); return; }
    const flag = target.closest(`[data-${key}]`);
    if (flag && !target.closest("#panel")) { choose(number(flag), flag.closest("tr, g")); return; }
    const group = target.closest("#picture .group[data-g]");
    if (group) { narrow(group.dataset.g); return; }
    const lane = target.closest("#picture [data-b]");
    if (lane) { pick(event); return; }
    const spread = target.closest("[data-c]");
    if (spread) { bundle(page.grid.columns.findIndex((list) => list.includes(Number(spread.dataset.c)))); }
  });
  find.addEventListener("input", filter);

  // By keyboard.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const active = document.activeElement;
    const typing = active === find;
    const row = active && active.closest ? active.closest("tr.way") : null;
    const list = visible();
    const go = (to) => { if (to) { for (const each of rows) each.tabIndex = -1; to.tabIndex = 0; to.focus(); } };
    if (event.key === "/" && !typing) { find.focus(); find.select(); event.preventDefault(); }
    else if (event.key === "Escape") {
      if (!panel.hidden) choose(null);
      else clear();
      event.preventDefault();
    } else if (event.key === "ArrowDown" && (typing || row || active === document.body)) {
      go(list[row ? list.indexOf(row) + 1 : 0]); event.preventDefault();
    } else if (event.key === "ArrowUp" && row) {
      const before = list.indexOf(row) - 1;
      if (before < 0) find.focus(); else go(list[before]);
      event.preventDefault();
    } else if ((event.key === "Home" || event.key === "End") && row) {
      go(list[event.key === "Home" ? 0 : list.length - 1]); event.preventDefault();
    } else if (event.key === "Enter" && typing && list.length) { choose(number(list[0]), list[0]); go(list[0]); }
    else if ((event.key === "Enter" || event.key === " ") && row) { choose(number(row), row); event.preventDefault(); }
    else if ((event.key === "Enter" || event.key === " ") && active.closest && active.closest("#picture .group")) {
      narrow(active.closest(".group").dataset.g); event.preventDefault();
    }
  });
  if (rows[0]) rows[0].tabIndex = 0;

  // Light up what the pointer is on.
  if (ways && picture) {
    picture.addEventListener("pointerover", (event) => {
      const group = event.target.closest(".group");
      if (group && !state.group && state.chosen === null) mark(null, group.dataset.g);
    });
    picture.addEventListener("pointerleave", () => { if (!state.group) mark(state.chosen); });
  }

  // The matrix: which cell.
  const tip = make("div", { id: "tip", role: "tooltip", hidden: "" });
  document.body.append(tip);
  const cell = (event) => {
    const { x, y, row, order } = page.grid;
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    const across = x.findIndex((edge, at) => at + 1 < x.length && edge <= point.x && point.x < x[at + 1]);
    const down = y.findIndex((middle) => Math.abs(middle - point.y) <= row / 2);
    return { across, down, kind: down < 0 ? null : order[down], x: x[across], width: x[across + 1] - x[across], y: y[down] - row / 2, row };
  };
  const bundle = (at) => {
    state.chosen = null;
    mark(null);
    const list = page.grid.columns[at];
    if (!list) return;
    for (const each of all(`#picture [data-b="${at}"]`)) each.classList.add("on");
    column(list);
  };
  const pick = (event) => {
    const at = cell(event);
    if (at.kind !== null && at.across >= 0) choose(at.kind, null);
    else if (at.across >= 0) bundle(at.across);
    else bundle(Number(event.target.closest("[data-b]").dataset.b));
  };
  if (!ways && picture && page.grid) {
    const cross = one("cross");
    picture.addEventListener("pointermove", (event) => {
      const at = cell(event);
      const inside = at.kind !== null && at.across >= 0;
      tip.hidden = !inside;
      cross.setAttribute("width", inside ? at.width : 0);
      cross.setAttribute("height", inside ? at.row : 0);
      if (!inside) return;
      cross.setAttribute("x", at.x); cross.setAttribute("y", at.y);
      const kind = page.kinds[at.kind], list = page.grid.columns[at.across];
      const names = list.slice(0, 8).map((each) => page.features[each].n).join(" ") + (list.length > 8 ? ` and ${list.length - 8} more` : "");
      tip.textContent = `${kind.n} ${kind.l.includes(list[0]) ? "lacks" : "has"} ${names}`;
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
    });
    picture.addEventListener("pointerleave", () => { tip.hidden = true; cross.setAttribute("width", 0); });
  }

  // Zoom: the wheel with Ctrl, the buttons, and dragging once it is larger.
  if (picture) {
    const canvas = picture.parentElement;
    const base = picture.viewBox.baseVal;
    const whole = { x: base.x, y: base.y, w: base.width, h: base.height };
    let view = { ...whole };
    const show = () => {
      view.w = Math.min(Math.max(view.w, whole.w / 12), whole.w);
      view.h = view.w * whole.h / whole.w;
      view.x = Math.min(Math.max(view.x, 0), whole.w - view.w);
      view.y = Math.min(Math.max(view.y, 0), whole.h - view.h);
      picture.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
      canvas.classList.toggle("zoomed", view.w < whole.w);
    };
    const zoom = (by, across, down) => {
      const w = Math.min(Math.max(view.w / by, whole.w / 12), whole.w);
      view.x += (view.w - w) * across;
      view.y += (view.h - w * whole.h / whole.w) * down;
      view.w = w;
      show();
    };
    for (const button of all("[data-zoom]")) button.addEventListener("click", () => {
      if (button.dataset.zoom === "all") { view = { ...whole }; show(); }
      else zoom(button.dataset.zoom === "in" ? 1.6 : 1 / 1.6, 0.5, 0.5);
    });
    picture.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const box = picture.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 300), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });
    let from = null;
    picture.addEventListener("pointerdown", (event) => {
      dragged = false;
      if (view.w < whole.w && event.button === 0) from = { x: event.clientX, y: event.clientY, view: { ...view } };
    });
    addEventListener("pointermove", (event) => {
      if (!from) return;
      const box = picture.getBoundingClientRect();
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      if (Math.abs(dx) + Math.abs(dy) > 4) { dragged = true; canvas.classList.add("dragging"); }
      view.x = from.view.x - dx * view.w / box.width;
      view.y = from.view.y - dy * view.h / box.height;
      show();
    });
    addEventListener("pointerup", () => { from = null; canvas.classList.remove("dragging"); setTimeout(() => { dragged = false; }); });
  }

  // An address can name what is chosen.
  const asked = (location.hash.match(new RegExp(`^#${key}=(.*)$`)) || [])[1];
  if (asked) {
    let named = asked;
    try { named = decodeURIComponent(asked); } catch { /* Then it is taken as it stands. */ }
    const at = (ways ? page.features : page.kinds).findIndex((each) => each.n === named);
    if (at >= 0) choose(at, rows.find((row) => number(row) === at));
  }
})();
