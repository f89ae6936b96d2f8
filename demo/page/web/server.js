// @ts-check
/** What the page asks of the process that serves it. */

/** Asks; throws an error with the server's words. */
async function ask(path, request) {
  const answer = await fetch(path, request);
  if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
  return answer.json();
}

/** An error in words. */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

export const look = (what) => ask(`/api/${what}`, {});

export const order = (what, body = {}) =>
  ask(`/api/${what}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
