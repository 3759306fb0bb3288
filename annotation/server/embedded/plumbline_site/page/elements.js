// Finding and making elements.

export const $ = (selector, within = document) => within.querySelector(selector);

export function create(tag, attributes = {}, text = "") {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

// Shows one section of the page, and no other.
export function showOnly(id) {
  for (const section of document.querySelectorAll("body > section")) {
    section.hidden = section.id !== id;
  }
  document.body.dataset.section = id;
}
