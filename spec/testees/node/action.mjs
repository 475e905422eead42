// Section 26: an action, the check of its input, the two checks before it, and what of its errors is told.

import { method } from './peer.mjs';
import { RpcError, isObject } from './wire.mjs';

/** ACT-4. What a peer is told of an error object. */
export class ActionError extends RpcError {
  constructor({ code, message, statusCode, fieldErrors }) {
    super('ActionError', message, { code, statusCode, ...(fieldErrors && { fieldErrors }) });
  }
}

/** ACT-5: every field that is wrong, by the way to it. */
function checked(input) {
  const fieldErrors = {};
  const demand = (holds, path, text) => { if (!holds) fieldErrors[path] = [text]; };
  const list = (key, isItem, text) => {
    if (input[key] === undefined) return;
    if (Array.isArray(input[key])) input[key].forEach((item, i) => demand(isItem(item), `${key}.${i}`, text));
    else demand(false, key, 'no list');
  };
  if (isObject(input)) {
    demand(typeof input.name === 'string', 'name', 'no text');
    list('script', isObject, 'no object');
    list('refuse', (each) => typeof each === 'string', 'no text');
  } else demand(false, '_root', 'no object');
  if (Object.keys(fieldErrors).length === 0) return input;
  throw new ActionError({
    code: 'VALIDATION_ERROR', message: 'Input validation failed', statusCode: 422, fieldErrors,
  });
}

/** The method `action`: `play` runs a script, `started` counts. What it throws before it streams is a refusal (ACT-3). */
export function actionMethod({ play, started }) {
  async function* chunks(call, name, script) {
    try {
      yield* play(call, name, script); // what it returns is nobody's
    } catch (error) { // ACT-6
      if (error instanceof ActionError || error === call.abort.signal.reason) throw error;
      throw new ActionError({ code: 'STREAM_ERROR', message: 'Stream handler error', statusCode: 500 });
    }
  }

  return method('input?', async (call, input = {}) => {
    const { name, script = [], refuse = [] } = checked(input);
    for (const check of ['first', 'second']) { // ACT-2
      started(`${name}.${check}`);
      if (refuse.includes(check)) throw new ActionError({ code: 'REFUSED', message: check, statusCode: 403 });
    }
    return chunks(call, name, script);
  });
}
