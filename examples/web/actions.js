// Stream actions over server-sent events: POST /actions/{name}, and the events of the answer.

/** What an action refused, or failed with; or what became of the connection. */
export class ActionError extends Error {
  constructor({ code = 'STREAM_ERROR', message = '', statusCode: status = 500, fieldErrors = {} }) {
    super(message);
    Object.assign(this, { name: 'ActionError', code, status, fieldErrors });
  }
}

/** The chunks of an action, as they come. To leave the loop, or to abort `signal`, ends it on the server too. */
export async function* streamAction(name, input, { signal } = {}) {
  const response = await sent(fetch(`/actions/${name}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify(input),
    signal,
  }));
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
    throw new ActionError({ message: `the server answered ${response.status}`, statusCode: response.status });
  }
  for await (const { event, data } of events(response.body)) {
    if (event === 'done') return;
    if (event === 'error') throw new ActionError(JSON.parse(data));
    if (event === 'message') yield JSON.parse(data);
  }
  throw new ActionError({ message: 'the stream broke off' });
}

/** The events of a text/event-stream (WHATWG HTML, 9.2.6), as {event, data}. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let returned = false; // the last character was a \r, of which a \n is a part
  let event = 'message';
  let data = [];
  try {
    for (;;) {
      const { value, done } = await sent(reader.read());
      if (done) return; // an event without its empty line is none
      const lines = (rest + (returned && value[0] === '\n' ? value.slice(1) : value)).split(/\r\n|\n|\r/);
      returned = value.endsWith('\r');
      rest = lines.pop();
      for (const line of lines) {
        const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (line === '') {
          if (data.length > 0) yield { event, data: data.join('\n') };
          event = 'message';
          data = [];
        } else if (field === 'data') data.push(text);
        else if (field === 'event') event = text;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** `promise`, whose failure is the network's and not the action's. */
async function sent(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ActionError({ message: 'the connection to the server was lost' });
  }
}
