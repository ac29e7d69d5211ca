// The shop page: photo, words, voice, similar, complete the look, and a feed that follows every step.

import * as api from "./api.js";
import { show } from "./goods.js";
import * as stage from "./stage.js";
import * as voice from "./voice.js";

const place = (id) => document.getElementById(id);
const shop = place("shop");
const parts = shop.dataset.parts.split(" ").filter(Boolean);
const FEED = 10;

api.visit.customer_id = shop.dataset.customer;
let photo = null;
let latest = 0;

const acts = {
  open: (good, decision) => step("view", good, decision, () => showSimilar(good)),
  more: {
    look: {
      words: "Complete look",
      when: (good) => parts.includes("outfit") && good.searchable,
      act: (good, decision) => step("click", good, decision, () => showLook(good)),
    },
    basket: { words: "Add", toggles: true, act: (good, decision) => step("add_to_cart", good, decision) },
  },
};

function say(words) {
  place("said").textContent = words;
}

function fail(error) {
  const problem = place("problem");
  problem.textContent = error.message;
  problem.hidden = false;
  say("");
}

/** Do something that takes a moment; only the latest such thing may still change the page. */
async function ask(words, work) {
  const mine = ++latest;
  place("problem").hidden = true;
  place("found").classList.add("busy");
  say(words);
  try {
    const answer = await work();
    return mine === latest ? answer : null;
  } catch (error) {
    if (mine === latest) fail(error);
    return null;
  } finally {
    if (mine === latest) place("found").classList.remove("busy");
  }
}

/** Tell what was done, answer it, and let the feed follow. */
async function step(action, good, decision, then) {
  const told = api.tell(action, good, decision).catch(fail);
  if (then) then();
  await told;
  await feed();
}

function results(title, about, lists, decision) {
  place("found").hidden = false;
  place("results-title").textContent = title;
  place("results-about").textContent = about;
  show(place("results-list"), lists, decision, acts);
}

function bring() {
  place("results").focus({ preventScroll: true });
  place("results").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

function showStage(title, hint) {
  place("found").hidden = false;
  place("stage").hidden = false;
  place("stage-title").textContent = title;
  place("stage-hint").textContent = hint;
  stage.name(title);
}

function showObjects(answer, title, hint) {
  const { objects, decision_id } = answer;
  showStage(title, hint);
  const pick = (at) => {
    const item = objects[at];
    stage.press(at);
    const words = item.items.length ? "" : answer.next_step || "Nothing in stock looks like it.";
    const name = stage.called(item);
    results(name === stage.NAMELESS ? "Looks alike" : `Looks like the ${name}`, words, [{ goods: item.items }], decision_id);
    say(`${item.items.length} results for the ${name}`);
  };
  stage.mark(objects, pick);
  if (objects.length) {
    pick(0);
    say(`${objects.length} ${objects.length === 1 ? "item" : "items"} found`);
  } else {
    place("stage-hint").textContent = "Tap the item that you mean, and the shop looks there.";
    results("Nothing found", answer.next_step, [], decision_id);
    say(answer.next_step);
  }
}

/** The photo in view, or what is said instead where nothing was found in it. */
function bringStage(answer) {
  place(answer.objects.length ? "stage" : "results").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

async function searchPhoto(file) {
  const answer = await ask("Looking at the photo", async () => {
    photo = await stage.take(file);
    return api.searchPhoto(photo, {}, place("remember").checked);
  });
  if (!answer) return;
  showObjects(answer, "Your photo", "Tap an item; or tap any other spot to search for what is there.");
  bringStage(answer);
  feed();
}

async function searchPoint(point) {
  if (!photo) return;
  const answer = await ask("Looking at that spot", () => api.searchPhoto(photo, { point }, place("remember").checked));
  if (answer) showObjects(answer, "Your photo", "Tap any other spot to search for what is there.");
}

async function showSimilar(good) {
  if (!good.searchable) return;
  const answer = await ask(`Similar to ${good.name}`, () => api.similar(good.product_id));
  if (!answer) return;
  results(`Similar to ${good.name}`, answer.next_step, [{ goods: answer.items }], answer.decision_id);
  say(`${answer.items.length} products similar to ${good.name}`);
  bring();
}

async function showLook(good) {
  const answer = await ask(`Completing the look with ${good.name}`, () => api.complete([good.product_id]));
  if (!answer) return;
  const lists = answer.parts.map(({ part, items }) => ({ title: part, goods: items }));
  results(`Goes with ${good.name}`, answer.next_step, lists, answer.decision_id);
  say(`${lists.length} parts complete the look`);
  bring();
}

async function searchWords(query) {
  const answer = await ask("Searching", () => api.searchWords(query));
  if (!answer) return;
  place("stage").hidden = true;
  results(`“${query}”`, answer.next_step || understood(answer.understood), [{ goods: answer.items }], answer.decision_id);
  say(`${answer.items.length} products fit`);
  feed();
}

function understood({ price_min, price_max, not_colours, without }) {
  const told = [
    price_min != null && `from ${price_min}`, price_max != null && `up to ${price_max}`,
    ...[...not_colours, ...without].map((word) => `without ${word}`),
  ].filter(Boolean);
  return told.length ? `Only ${told.join(", ")}.` : "";
}

async function openLook(button) {
  const { look, image, title } = button.dataset;
  const answer = await ask(`Opening ${title}`, async () => {
    const found = await api.look(look);
    await stage.open(image);
    return found;
  });
  if (!answer) return;
  photo = null;
  showObjects(answer, title, "Tap an item to see what comes close to it.");
  bringStage(answer);
}

const PATHS = {
  personal: "From what this customer bought and looked at.",
  session: "From what you did on this visit.",
  popular: "What many buy; it follows you from the first product that you open.",
};

let asked = 0;
async function feed() {
  const mine = ++asked;
  const list = place("feed-list");
  list.classList.add("busy");
  try {
    const answer = await api.recommend(FEED);
    if (mine !== asked) return;
    place("feed-about").textContent = PATHS[answer.path] ?? "";
    list.dataset.decision = answer.decision_id;
    show(list, [{ goods: answer.goods }], answer.decision_id, acts);
  } catch (error) {
    if (mine === asked) place("feed-about").textContent = error.message;
  } finally {
    list.classList.remove("busy");
  }
}

for (const id of ["camera", "file"]) {
  place(id)?.addEventListener("change", ({ target }) => {
    if (target.files.length) searchPhoto(target.files[0]);
    target.value = "";
  });
}
place("words")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const query = place("query").value.trim();
  if (query) searchWords(query);
});
if (place("sizes")) {
  const boxes = [...place("sizes").querySelectorAll("input")];
  const kept = api.keptSizes();
  const choose = () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    api.wear(chosen);
    place("sizes-said").textContent = chosen.join(", ") || "any";
  };
  for (const box of boxes) {
    box.checked = kept.includes(box.value);
    box.addEventListener("change", choose);
  }
  choose();
}
if (place("voice")) {
  const hearing = (words) => { place("query").value = words; };
  voice.offer(place("voice"), {
    hearing,
    heard: searchWords,
    busy: say,
    problem: (words) => fail(new Error(words)),
  });
}
place("close").addEventListener("click", () => {
  place("found").hidden = true;
  place("stage").hidden = true;
  place("problem").hidden = true;
  photo = null;
});
stage.onPoint(searchPoint);
for (const button of document.querySelectorAll("button.look")) {
  button.addEventListener("click", () => openLook(button));
}
feed();
