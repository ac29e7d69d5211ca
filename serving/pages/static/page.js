// The status page without reloads: the form answers in place, the numbers keep themselves fresh.
// Everything also works without this file.

const REFRESH_MS = 5000;

async function fragment(url) {
  const response = await fetch(url, { headers: { accept: "text/html" } });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail || `the server answered ${response.status}`);
  }
  return response.text();
}

const form = document.getElementById("try");
const answer = document.getElementById("answer");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = new URLSearchParams(new FormData(form));
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    answer.innerHTML = await fragment(`/page/try?${query}`);
    history.replaceState(null, "", `/?${query}`);
    await refresh(true);
  } catch (error) {
    const note = document.createElement("p");
    note.className = "note";
    note.setAttribute("role", "alert");
    note.textContent = `No answer: ${error.message}.`;
    answer.replaceChildren(note);
  } finally {
    button.disabled = false;
  }
});

const numbers = document.getElementById("numbers");
async function refresh(now = false) {
  const inUse = numbers.contains(document.activeElement) || numbers.querySelector("details[open]");
  if (!now && (document.hidden || inUse)) return;
  try {
    numbers.innerHTML = await fragment("/page/numbers");
    numbers.classList.remove("stale");
  } catch {
    numbers.classList.add("stale");
  }
}
setInterval(refresh, REFRESH_MS);
