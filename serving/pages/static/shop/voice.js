// Search by voice, where the browser understands speech on this device: no sound leaves it, so no other host hears it.

const Recognition = window.SpeechRecognition ?? window.webkitSpeechRecognition;

const PROBLEMS = {
  "no-speech": "Nothing was heard. Press the microphone and speak.",
  "not-allowed": "The microphone may not be used on this page. Allow it in the browser, or type.",
  "audio-capture": "There is no microphone. Type what you are looking for.",
};

/**
 * Show the button where speech is understood on the device; elsewhere it stays hidden.
 * @param {HTMLButtonElement} button - Starts listening, and stops it.
 * @param {object} on - `hearing(words)` while somebody speaks, `heard(words)` at the end, `problem(words)`, `busy(words)`.
 */
export async function offer(button, on) {
  // Without `available` a browser may send sound to its maker.
  if (!Recognition?.available) return;
  const options = { langs: [navigator.language], processLocally: true };
  const able = await Recognition.available(options).catch(() => "unavailable");
  if (able === "unavailable") return;
  button.hidden = false;
  let listening = null;
  button.addEventListener("click", async () => {
    if (listening) {
      listening.stop();
      return;
    }
    const recognition = new Recognition();
    listening = recognition;
    button.setAttribute("aria-pressed", "true");
    try {
      if (able !== "available") {
        on.busy("Your browser is fetching what it needs to understand speech");
        if (!(await Recognition.install(options))) throw new Error("Speech is not understood here. Type instead.");
      }
      on.busy("Listening");
      const words = await listen(recognition, options.langs[0], on.hearing);
      if (words) on.heard(words);
    } catch (error) {
      on.problem(error.message);
    } finally {
      listening = null;
      button.setAttribute("aria-pressed", "false");
    }
  });
}

/** What was said, once it ends; empty if it was stopped before anything was heard. */
function listen(recognition, lang, hearing) {
  Object.assign(recognition, { lang, processLocally: true, interimResults: true, continuous: false });
  return new Promise((resolve, reject) => {
    let words = "";
    recognition.onresult = ({ results }) => {
      words = [...results].map(([best]) => best.transcript).join(" ").trim();
      hearing(words);
    };
    recognition.onerror = ({ error, message }) => {
      if (error !== "aborted") reject(new Error(PROBLEMS[error] ?? `Speech was not understood: ${message || error}.`));
    };
    recognition.onend = () => resolve(words);
    recognition.start();
  });
}
