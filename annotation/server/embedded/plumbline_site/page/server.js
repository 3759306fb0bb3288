// Requests to the server, and who is signed in.

const KEY = "plumbline.sign-in";

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export class Unreachable extends Error {}

export function signedIn() {
  try {
    return JSON.parse(localStorage.getItem(KEY));
  } catch {
    return null;
  }
}

export function forget() {
  localStorage.removeItem(KEY);
}

export async function signIn(name, password) {
  const body = new URLSearchParams({ username: name, password });
  const reply = await send("/token", { method: "POST", body });
  localStorage.setItem(KEY, JSON.stringify({ name, token: reply.access_token }));
}

export async function signOut() {
  try {
    await request("POST", "/sign-out");
  } finally {
    forget();
  }
}

// Returns the JSON of a reply. Throws Refused where the server refuses, and Unreachable where it
// does not answer or asks to come again later.
export async function request(method, path, content) {
  const headers = { Authorization: `Bearer ${signedIn()?.token ?? ""}` };
  if (content !== undefined) headers["Content-Type"] = "application/json";
  return send(path, { method, headers, body: content && JSON.stringify(content) });
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { ...options, cache: "no-store" });
  } catch {
    throw new Unreachable("The server does not answer.");
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const detail = await response.json().then((reply) => words(reply.detail), () => "");
  if (response.status >= 500 || (response.status === 429 && path !== "/token")) {
    throw new Unreachable(detail || "The server has a problem.");
  }
  throw new Refused(response.status, detail || response.statusText);
}

function words(detail) {
  return typeof detail === "string" ? detail : JSON.stringify(detail);
}
