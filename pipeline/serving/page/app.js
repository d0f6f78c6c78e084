// The search page: plain script, nothing loaded from other sites.
const byId = (id) => document.getElementById(id);
const form = byId("form"), query = byId("query"), grid = byId("grid"), dialog = byId("dialog");
const video = byId("video"), still = byId("still");
const SLOW = 1500;
const EXAMPLES = ["a dog jumps into the water", "someone rides a bicycle", "the sea at sunset"];
let about = null, running = null, answer = null, like = null, opened = -1, offset = 0, fetching = null;

function make(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function icon(right) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", "M2 10h4v11H2zM8 21h9.5a2 2 0 0 0 1.9-1.4l2.5-8A2 2 0 0 0 20 9h-5.5l.8-4.6A2 2 0 0 0 13.3 2L8 9.5z");
  if (!right) path.setAttribute("transform", "rotate(180 12 12)");
  svg.append(path);
  return svg;
}

function clock(seconds) {
  const whole = Math.floor(seconds), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
  const s = String(whole % 60).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${s}` : `${m}:${s}`;
}
const span = (moment) => `${clock(moment.start)}–${clock(moment.end)}`;
// Bytes of a name that are not UTF-8 are lone surrogates.
const shown = (path) => path.replace(/[\ud800-\udfff]/gu, "�");
const fileName = (path) => shown(path.split("/").pop());

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is serve.py still running?");
  }
  let content = null;
  try {
    content = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response.ok) throw new Error("the server's answer cannot be read");
  }
  if (!response.ok) {
    const detail = content && (content.error || (content.detail && content.detail.map((one) => `${one.loc.at(-1)}: ${one.msg}`).join("; ")));
    throw new Error(detail || `the server answered with ${response.status}`);
  }
  return content;
}
const post = (path, body, signal) => ask(path, {
  method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});

// Searching

function fields() {
  const values = {};
  for (const name of ["without", "folder"]) {
    const text = form.elements[name].value.trim();
    if (text) values[name] = text;
  }
  for (const name of ["longer_than", "shorter_than"]) {
    if (form.elements[name].value !== "") values[name] = Number(form.elements[name].value);
  }
  for (const name of ["after", "before"]) {
    const day = form.elements[name].value;
    if (day) values[name] = new Date(`${day}T00:00:00`).getTime() / 1000;
  }
  return values;
}

function wanted() {
  const text = query.value.trim();
  return { ...(text ? { query: text } : {}), ...(like ? { like: like.id } : {}), ...fields() };
}

async function search({ push = true } = {}) {
  const request = wanted();
  if (!request.query && !request.like) {
    showStart();
    if (push) remember();
    query.focus();
    return;
  }
  if (push) remember();
  running?.abort();
  const mine = running = new AbortController();
  const slow = setTimeout(() => say("Still searching…"), SLOW);
  byId("progress").hidden = false;
  grid.classList.add("stale");
  say("Searching…");
  try {
    const found = await post("/api/search", { ...request, top: 30 }, mine.signal);
    if (mine !== running) return;
    answer = { ...found, request };
    show();
  } catch (error) {
    if (error.name === "AbortError" || mine !== running) return;
    answer = null;
    grid.replaceChildren();
    byId("blank").hidden = true;
    say("");
    notes([message(error.message, true, ["Try again", () => search({ push: false })])]);
  } finally {
    clearTimeout(slow);
    if (mine === running) {
      byId("progress").hidden = true;
      grid.classList.remove("stale");
    }
  }
}

function remember() {
  const values = new URLSearchParams();
  if (query.value.trim() && query.value.length < 2000) values.set("q", query.value.trim());
  if (like) values.set("like", like.id);
  for (const name of ["without", "folder", "longer_than", "shorter_than", "after", "before"]) {
    if (form.elements[name].value) values.set(name, form.elements[name].value);
  }
  const hash = values.size ? `#${values}` : location.pathname;
  if (`#${values}` !== location.hash) history.pushState(null, "", hash);
}

function recall() {
  const values = new URLSearchParams(location.hash.slice(1));
  query.value = values.get("q") || "";
  setLike(values.has("like") ? { id: values.get("like") } : null);
  for (const name of ["without", "folder", "longer_than", "shorter_than", "after", "before"]) {
    form.elements[name].value = values.get(name) || "";
    if (values.has(name)) byId("filters").open = true;
  }
}

function setLike(one) {
  like = one;
  const place = byId("like");
  place.hidden = !one;
  place.replaceChildren();
  if (!one) return;
  place.append(
    strip(one.id), `similar to ${one.path ? `${fileName(one.path)}, ${span(one)}` : "this moment"}`,
    make("button", { type: "button", onclick: () => { setLike(null); search(); } }, "remove"),
  );
}

// Showing

const say = (text) => { byId("status").textContent = text; };
const notes = (nodes) => byId("notes").replaceChildren(...nodes);

function message(text, bad = false, button = null) {
  const node = make("p", { className: bad ? "message bad" : "message" }, text);
  if (bad) node.setAttribute("role", "alert");
  if (button) node.append(make("button", { type: "button", onclick: button[1] }, button[0]));
  return node;
}

function showStart() {
  answer = null;
  grid.replaceChildren();
  const blank = byId("blank");
  blank.hidden = false;
  if (!about) return;
  notes(about.problems.map((text) => message(`damaged: ${text}`, true)));
  if (!about.videos) {
    say("");
    blank.replaceChildren(make("h2", {}, "This index holds no videos yet"), make("p", {}, "Index a folder, then search:"), make("code", {}, `python pipeline/index.py FOLDER --out ${about.index}`));
    return;
  }
  say(`${about.videos.toLocaleString()} videos, ${about.windows.toLocaleString()} moments`);
  blank.replaceChildren(
    make("h2", {}, "Find the moment"),
    make("p", {}, "Write what should be seen, as a sentence. Press / to write, the arrow keys to move between results, Enter to open one."),
    make("div", { className: "chips" }, ...EXAMPLES.map((text) => make("button", { type: "button", onclick: () => { query.value = text; search(); } }, text))),
    make("p", {}, `Indexed: ${about.roots.join(", ") || "no folder"}. Model: ${about.model.name}, ${about.model.head}.`),
  );
}

function show() {
  const { results, request } = answer;
  byId("blank").hidden = true;
  const said = [
    ...answer.problems.map((text) => message(`damaged: ${text}`, true)),
    ...answer.notes.map((text) => message(text)),
  ];
  if (!results.length) said.push(message("No video passes what you narrowed the search down to.", false, ["Search everything", () => { clearFields(); search(); }]));
  else if (answer.close === false) said.push(message("No close match; the nearest are:"));
  notes(said);
  say(results.length ? `${results.length} videos of ${answer.windows.toLocaleString()} moments in ${Math.max(1, Math.round(answer.took_ms))} ms` : "");
  // A bar begins at the usual score of a moment, and ends at the best one.
  const best = Math.max(...results.map((one) => one.score));
  const usual = answer.usual ?? Math.min(0, ...results.map((one) => one.score));
  grid.replaceChildren(...results.map((one, at) => card(one, at, request, best > usual ? (one.score - usual) / (best - usual) : 1)));
  scrollTo(0, 0);
}

function clearFields() {
  for (const name of ["without", "folder", "longer_than", "shorter_than", "after", "before"]) form.elements[name].value = "";
}

function strip(id) {
  const box = make("div", { className: "strip" });
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: false });
  const look = (share) => {
    const count = Math.max(1, Math.round(image.naturalWidth / image.naturalHeight) || 1);
    image.style.transform = `translateX(${(-100 / count) * Math.min(count - 1, Math.floor(share * count))}%)`;
  };
  image.addEventListener("load", () => look(0.5));
  box.addEventListener("pointermove", (event) => {
    const { left, width } = box.getBoundingClientRect();
    look(Math.max(0, Math.min(0.999, (event.clientX - left) / width)));
  });
  box.addEventListener("pointerleave", () => look(0.5));
  image.src = `/api/strip/${id}`;
  box.append(image);
  return box;
}

function card(one, at, request, share) {
  const picture = strip(one.id);
  picture.append(make("span", { className: "time" }, span(one)));
  if (one.state) picture.append(make("span", { className: "state" }, one.state === "missing" ? "file is gone" : "file has changed"));
  const meter = make("div", { className: "meter" }, make("i"));
  meter.firstChild.style.width = `${Math.max(2, 100 * share)}%`;
  const place = one.place === null ? `similarity ${one.score.toFixed(3)}` : one.place === 1 ? "above all everyday queries" : `above ${Math.floor(100 * one.place)} % of everyday queries`;
  meter.title = place;
  const more = one.moments.length ? `, also ${one.moments.map((m) => clock(m.start)).join(", ")}` : "";
  const open = make("button", { className: "open", type: "button", onclick: () => show_moment(at) },
    picture, meter,
    make("div", { className: "text" },
      make("div", { className: "name", title: shown(one.path) }, fileName(one.path)),
      make("div", { className: "about" }, `${one.score.toFixed(3)} · ${place}${more}`)));
  open.setAttribute("aria-label", `${one.rank}: ${fileName(one.path)}, ${span(one)}, ${place}`);
  const tools = make("div", { className: "tools" },
    make("button", { className: "like-this", type: "button", title: "More like this", onclick: () => moreLike(one) }, "more like this"));
  if (request.query) tools.append(thumb(one, request.query, true), thumb(one, request.query, false));
  return make("article", { className: "card" }, open, tools);
}

function moreLike(one) {
  if (dialog.open) dialog.close();
  query.value = "";
  setLike(one);
  search();
}

// Labels

function thumb(one, text, right) {
  const label = right ? "Fits the query" : "Does not fit the query";
  return make("button", {
    type: "button", title: label, "aria-label": label, "aria-pressed": String(one.judged === right),
    onclick: async (event) => {
      const button = event.currentTarget;
      try {
        await judge(one, text, right);
        for (const other of button.parentElement.querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", String(other === button));
      } catch (error) { notes([message(error.message, true)]); }
    },
  }, icon(right));
}

async function judge(one, text, right) {
  await post("/api/label", { id: one.id, query: text, right });
  one.judged = right;
}

// One result

function show_moment(at) {
  const one = answer?.results[at];
  if (!one) return;
  opened = at;
  byId("title").textContent = `${fileName(one.path)} · ${span(one)}`;
  byId("path").textContent = [shown(one.path), ...one.copies.map((copy) => `also ${shown(copy)}`), `${one.width}×${one.height}, ${one.codec}, ${clock(one.duration)}`].join(" · ");
  byId("previous").disabled = at === 0;
  byId("next").disabled = at === answer.results.length - 1;
  byId("kept").textContent = "";
  for (const [id, right] of [["right", true], ["wrong", false]]) {
    byId(id).hidden = !answer.request.query;
    byId(id).setAttribute("aria-pressed", String(one.judged === right));
  }
  byId("moments").replaceChildren(...[one, ...one.moments].map((m) => make("button", { type: "button", onclick: () => seek(m, one) }, span(m))));
  if (!dialog.open) dialog.showModal();
  play(one, one);
  why(one);
}

function play(one, moment) {
  video.hidden = false;
  still.hidden = true;
  byId("loading").hidden = false;
  byId("playing").textContent = one.state === "changed" ? "The file has changed since it was indexed: what plays may be something else." : "";
  if (one.state === "missing") return showStill(moment, "The file is gone since it was indexed. These are its frames.");
  offset = 0;
  load(`/api/video/${moment.id}`, moment.start, () => {
    byId("playing").textContent = `This browser cannot play the file (${one.codec}): the moment is being encoded again…`;
    offset = moment.start;
    load(`/api/clip/${moment.id}`, 0, () => showStill(moment, `This video (${one.codec}) cannot be played here. These are its frames.`), () => {
      byId("playing").textContent = `This browser cannot play the file (${one.codec}): the moment was encoded again.`;
    });
  });
}

function load(address, start, failed, ready = () => {}) {
  let done = false;
  const fail = () => { if (!done) { done = true; failed(); } };
  video.onerror = fail;
  video.onloadedmetadata = () => {
    if (done) return;
    if (!video.videoWidth) return fail(); // only its sound can be played
    done = true;
    video.currentTime = start;
    video.play().catch(() => { /* the person presses play */ });
    ready();
  };
  video.onloadeddata = () => { byId("loading").hidden = true; };
  video.src = address;
}

function seek(moment, one) {
  if (!video.hidden && !offset && video.readyState) {
    video.currentTime = moment.start;
    video.play().catch(() => {});
  } else play(one, moment);
}

function showStill(moment, text) {
  stop();
  video.hidden = true;
  byId("loading").hidden = true;
  still.hidden = false;
  still.src = `/api/strip/${moment.id}`;
  byId("playing").textContent = text;
}

function stop() {
  video.onerror = video.onloadedmetadata = video.onloadeddata = null;
  video.pause();
  video.removeAttribute("src");
  video.load();
}

async function why(one) {
  const place = byId("why");
  place.replaceChildren();
  fetching?.abort();
  if (!answer.request.query) return;
  const mine = fetching = new AbortController();
  place.append(make("p", {}, "Looking at what the model made of it…"));
  let found;
  try {
    found = await ask(`/api/explain/${one.id}?${new URLSearchParams({ query: answer.request.query.slice(0, 4000) })}`, { signal: mine.signal });
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(message(error.message, true));
    return;
  }
  if (mine !== fetching) return;
  place.replaceChildren();
  if (found.sentence_weights || found.word_weights) place.append(...attention(one, found));
  if (found.contrasts.length > 1) place.append(...contrasts(found));
}

function attention(one, found) {
  const frames = found.times.map((time) => make("div", { className: "frame" }, make("div", { className: "picture" }), make("div", { className: "weight" }, make("i")), clock(time)));
  const sheet = new Image();
  sheet.onload = () => frames.forEach((frame, at) => {
    const picture = frame.firstChild;
    picture.style.backgroundImage = `url("${sheet.src}")`;
    picture.style.backgroundSize = `${100 * frames.length}% 100%`;
    picture.style.backgroundPosition = `${frames.length > 1 ? (100 * at) / (frames.length - 1) : 0}% 0`;
  });
  sheet.src = `/api/frames/${one.id}`;
  const choose = (weights, button) => {
    frames.forEach((frame, at) => {
      const bar = frame.querySelector("i");
      bar.style.height = `${100 * weights[at]}%`;
      bar.parentElement.title = `${(100 * weights[at]).toFixed(1)} %`;
    });
    for (const other of words.children) other.setAttribute("aria-pressed", String(other === button));
  };
  const words = make("div", { className: "words", role: "group", "aria-label": "Words" });
  const add = (text, weights) => {
    const button = make("button", { type: "button", "aria-pressed": "false" }, text);
    button.addEventListener("click", () => choose(weights, button));
    button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") choose(weights, button); });
    words.append(button);
  };
  if (found.sentence_weights) add("whole query", found.sentence_weights);
  if (found.word_weights) found.words.forEach((word, at) => add(word, found.word_weights[at]));
  choose(found.sentence_weights || found.word_weights[0], words.firstChild);
  return [
    make("h3", {}, "Frames that the words attend to"),
    make("p", {}, "Choose a word: the bars show how much of its attention each frame gets."),
    words, make("div", { className: "frames" }, ...frames),
  ];
}

function contrasts(found) {
  const names = { video_sentence: "video – sentence", video_word: "video – words", sentence_frame: "sentence – frames", frame_word: "frames – words" };
  const body = found.contrasts.map((one) => {
    const meter = make("div", { className: "meter" }, make("i"));
    meter.firstChild.style.width = `${100 * Math.max(0, Math.min(1, one.weight ?? 1 / found.contrasts.length))}%`;
    return make("tr", {}, make("td", {}, names[one.name] || one.name.replaceAll("_", " ")),
      make("td", { className: "number" }, one.score.toFixed(3)), make("td", {}, meter),
      make("td", { className: "number" }, one.weight === null ? "equal" : `${(100 * one.weight).toFixed(0)} %`));
  });
  return [
    make("h3", {}, "Contrasts"),
    make("table", { className: "contrasts" }, make("thead", {}, make("tr", {}, ...["contrast", "score", "weight", ""].map((text) => make("th", {}, text)))), make("tbody", {}, ...body)),
  ];
}

// Events

byId("right").prepend(icon(true));
byId("wrong").prepend(icon(false));
form.addEventListener("submit", (event) => { event.preventDefault(); search(); });
addEventListener("popstate", () => { if (dialog.open) dialog.close(); recall(); search({ push: false }); });
byId("close").addEventListener("click", () => dialog.close());
byId("previous").addEventListener("click", () => show_moment(opened - 1));
byId("next").addEventListener("click", () => show_moment(opened + 1));
byId("more").addEventListener("click", () => moreLike(answer.results[opened]));
for (const [id, right] of [["right", true], ["wrong", false]]) {
  byId(id).addEventListener("click", async () => {
    const one = answer.results[opened];
    try {
      await judge(one, answer.request.query, right);
      byId("right").setAttribute("aria-pressed", String(right));
      byId("wrong").setAttribute("aria-pressed", String(!right));
      byId("kept").textContent = "kept for training";
    } catch (error) { byId("kept").textContent = error.message; }
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  stop();
  fetching?.abort();
  if (answer) show_judged();
  grid.children[opened]?.querySelector(".open")?.focus();
});

function show_judged() {
  [...grid.children].forEach((node, at) => {
    const [right, wrong] = node.querySelectorAll("[aria-pressed]");
    right?.setAttribute("aria-pressed", String(answer.results[at].judged === true));
    wrong?.setAttribute("aria-pressed", String(answer.results[at].judged === false));
  });
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (dialog.open) {
    if (event.key === "j") show_moment(opened + 1);
    if (event.key === "k") show_moment(opened - 1);
    return;
  }
  if (event.key === "/" && !typing) {
    event.preventDefault();
    query.focus();
    query.select();
    return;
  }
  if (typing && event.key !== "ArrowDown") return;
  const cards = [...grid.querySelectorAll(".open")];
  if (!cards.length || !event.key.startsWith("Arrow")) return;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const now = cards.indexOf(document.activeElement);
  const next = now < 0 ? 0 : now + step;
  if (next < 0) { query.focus(); event.preventDefault(); return; }
  if (cards[next]) { cards[next].focus(); event.preventDefault(); }
});

recall();
try {
  about = await ask("/api/index");
  document.title = `${about.index.split("/").pop()} · Video search`;
  byId("roots").replaceChildren(...about.roots.map((root) => make("option", { value: root })));
  await search({ push: false });
} catch (error) {
  notes([message(error.message, true, ["Try again", () => location.reload()])]);
}
