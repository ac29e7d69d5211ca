// The photo with a button over each item; a tap beside them asks about that point.

const LONGEST = 1600;
const canvas = document.getElementById("photo");
const spots = document.getElementById("spots");

/** Draw a picture no larger than is looked at, and give it as a JPEG without the camera's notes. */
export async function take(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file; // A kind that this browser cannot read: the server says what it makes of it.
  }
  draw(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  return blob ?? file;
}

/** Show one of the shop's own pictures. */
export async function open(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  draw(image, image.naturalWidth, image.naturalHeight);
}

export function name(words) {
  canvas.setAttribute("aria-label", words);
}

function draw(picture, width, height) {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  spots.replaceChildren();
}

/** What a pack shot is called of which nothing is told. */
export const NAMELESS = "product";

/** What an item is called: its colour and class, as far as they are told; the class of a pack shot is no word for shoppers. */
export function called(item) {
  const { colour } = item.attributes;
  const name = item.class === "whole product" ? NAMELESS : item.class || "item";
  return [colour?.confidence >= 0.5 ? colour.value : "", name].filter(Boolean).join(" ");
}

/** Lay a button over every item; `pick` is called with the item's place. */
export function mark(objects, pick) {
  // Smaller items lie above larger ones, so that each can be reached.
  const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  const order = [...objects.keys()].sort((one, other) => area(objects[other]) - area(objects[one]));
  const buttons = objects.map((item, place) => {
    const [left, top, right, bottom] = item.box;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "spot";
    Object.assign(button.style, {
      left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`,
      height: `${100 * (bottom - top)}%`, zIndex: order.indexOf(place) + 1,
    });
    const label = document.createElement("span");
    label.textContent = called(item);
    button.append(label);
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `${called(item)}, ${item.items.length} results`);
    button.addEventListener("click", () => pick(place));
    return button;
  });
  spots.replaceChildren(...buttons);
}

export function press(place) {
  [...spots.children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === place)));
}

/** Call back with the point, as shares of the picture, where the photo itself is tapped. */
export function onPoint(ask) {
  canvas.addEventListener("click", (event) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const share = (value, size) => Math.min(1, Math.max(0, value / size)).toFixed(4);
    ask(`${share(event.clientX - left, width)},${share(event.clientY - top, height)}`);
  });
}
