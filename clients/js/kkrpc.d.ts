/** Types of kkrpc.js. */

/** The extensions of the protocol that this client has. */
export type Feature =
  | 'credit' | 'batch' | 'result' | 'cancel' | 'callback' | 'stream-arguments' | 'kwargs' | 'metadata';
export declare const FEATURES: readonly Feature[];

/** Bounds of one channel: bytes, numbers and, where the name ends in `Ms`, milliseconds. */
export interface Limits {
  /** One message, read or written. */
  frame: number;
  /** What is handed on of a line that is no message. */
  noise: number;
  /** Nested lists and objects in a message. */
  depth: number;
  /** Decimal digits of one integer. */
  digits: number;
  /** An id. */
  idBytes: number;
  /** The peer's calls and streams that run here at once; as many of its streams within values. */
  calls: number;
  /** The frames of those calls; as much of streams within values that lies unread. */
  callBytes: number;
  /** Functions that this side holds of the peer, and as many that the peer holds. */
  callbacks: number;
  /** Bytes of one stream that may lie unread; the producer waits then. */
  streamBuffer: number;
  /** The same in values; no less than 64. */
  streamChunks: number;
  /** Bytes of one stream of a peer without credit that may lie unread; the stream is cancelled then. */
  stockStreamBuffer: number;
  /** Bytes that may lie in a WebSocket before this side stops writing to it. */
  sendHighWater: number;
  /** Bytes of answers that the peer does not read; the channel closes then. */
  sendMax: number;
  helloMs: number;
  cleanupMs: number;
  finishMs: number;
}
export declare const LIMITS: Readonly<Limits>;

// ------------------------------------------------------------------------------------------------- errors

export type Fields = Record<string, unknown>;

export declare class KkrpcError extends Error {
  constructor(message?: string, fields?: Fields);
  /** What the error says beside its name and message. */
  fields: Fields;
  /** The field `code`. */
  get code(): unknown;
}
/** The connection is gone; `code` is a WebSocket's close code. */
export declare class ChannelClosed extends KkrpcError {}
export declare class CallCancelled extends KkrpcError {}
export declare class CallTimeout extends KkrpcError {}
export declare class ProtocolError extends KkrpcError {}
export declare class LimitExceeded extends KkrpcError {}
/** A value that cannot be sent as it is; nothing was sent. */
export declare class NotSerializable extends KkrpcError {}
/** The peer's handler raised. A handler that throws one itself chooses the name and fields that the peer gets. */
export declare class RemoteError extends KkrpcError {
  constructor(name: string, message: string, fields?: Fields);
}
export declare class MethodNotFound extends RemoteError {}
export declare class PropertyNotFound extends RemoteError {}
export declare class CallbackReleased extends RemoteError {}
/** An action refused, or failed, in words for its caller. */
export declare class ActionError extends RemoteError {
  get code(): string;
  get status(): number;
  /** Messages by the dotted path of the field that they are about. */
  get fieldErrors(): Record<string, string[]>;
}

// -------------------------------------------------------------------------------------- calls and streams

export interface CallOptions {
  /** Gives the call up, or cancels its stream; both then raise the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds until there must be an answer; a stream's values may take longer. */
  timeout?: number;
  /** Arguments by name, beside the others. */
  kwargs?: Record<string, unknown>;
  /** What goes beside the arguments, such as `traceparent`. */
  meta?: Record<string, unknown>;
}

/** A promise of an answer. */
export interface RemoteCall<T> extends Promise<T> {
  /** Gives the call up. Resolves once the peer has cleaned up, where it says so. */
  cancel(): Promise<void>;
}

/** A promise of a stream, that `for await` takes as well. */
export interface RemoteStreamCall<T, R = unknown> extends RemoteCall<RemoteStream<T, R>> {
  [Symbol.asyncIterator](): AsyncGenerator<T, R, undefined>;
}

/** A stream of the peer's, for one reader. To leave a `for await` loop, or to let go of it, cancels it. */
export declare class RemoteStream<T = unknown, R = unknown> implements AsyncIterableIterator<T> {
  private constructor();
  [Symbol.asyncIterator](): this;
  next(): Promise<IteratorResult<T, R>>;
  return(value?: unknown): Promise<IteratorResult<T, any>>;
  throw(error?: unknown): Promise<IteratorResult<T, any>>;
  /** What the producer returned, once it has ended. It reads no values: see `drain`. */
  get result(): Promise<R>;
  /** Reads the rest without a look at it, and gives what the producer returned. */
  drain(): Promise<R>;
  /** Wants no more. Resolves once the producer has cleaned up, where the peer says so. */
  cancel(): Promise<void>;
}

/** A function of the peer's, as an argument or within a value. */
export interface RemoteFunction<A extends unknown[] = any[], R = any> {
  (...args: A): RemoteCall<R>;
  /** Calls it without wanting an answer. */
  notify(...args: A): Promise<void>;
  /** This side needs it no more. (Else a garbage collector says so, later.) */
  release(): void;
}

// ----------------------------------------------------------------------------------------- the peer's API

type IsAny<T> = 0 extends 1 & T ? true : false;
type Primitive = string | number | boolean | bigint | symbol | null | undefined;

/** What a call of a function that returns R gives. */
export type RemoteResult<R> =
  IsAny<R> extends true ? RemoteCall<any> & AsyncIterable<any>
  : Awaited<R> extends AsyncGenerator<infer T, infer V, any> ? RemoteStreamCall<T, V>
  : Awaited<R> extends Generator<infer T, infer V, any> ? RemoteStreamCall<T, V>
  : Awaited<R> extends AsyncIterable<infer T> ? RemoteStreamCall<T>
  : RemoteCall<Awaited<R>>;

/** What has data alone: fields without functions. */
export type PublicFields<T> = {
  [K in keyof T as T[K] extends (...args: any[]) => any ? never : K extends `_${string}` ? never : K]: T[K];
};

type RemoteMember<T> =
  IsAny<T> extends true ? any
  : T extends abstract new (...args: infer A) => infer I ? new (...args: A) => RemoteCall<PublicFields<I>>
  : T extends (...args: infer A) => infer R ? (...args: A) => RemoteResult<R>
  : T extends Primitive | Uint8Array | readonly unknown[] ? PromiseLike<T>
  : Remote<T> & PromiseLike<PublicFields<T>>;

/** A peer's API as it is seen from here: `channel.remote<typeof api>()`. Names with a leading `_` are not exposed. */
export type Remote<T> = IsAny<T> extends true ? any : {
  readonly [K in keyof T as K extends `_${string}` ? never : K]: RemoteMember<T[K]>;
};

/** The same part of a peer's API, whose calls are made with these options. */
export declare function withOptions<P>(proxy: P, options: CallOptions): P;

// ---------------------------------------------------------------------------------------- what is exposed

export interface CallContext {
  /** Aborted when the peer wants no more of the call or stream, or is gone. */
  signal: AbortSignal;
  meta: Record<string, unknown>;
  kwargs: Record<string, unknown>;
  id: string | number | bigint | undefined;
  channel: RPCChannel;
}

/** Says more of a function that is to be exposed, or passed; returns the function. */
export declare function handler<A extends unknown[], R>(
  options: { context: true; parameters?: string[]; anyNames?: boolean },
  run: (context: CallContext, ...args: A) => R,
): (...args: A) => R;
export declare function handler<F extends Function>(options: { context?: false; parameters?: string[] }, run: F): F;

// ------------------------------------------------------------------------------------------------ channels

/** A WebSocket, or an object that has as much of one. */
export interface SocketLike {
  send(data: string): void;
  close(code?: number, reason?: string): void;
  onmessage?: ((event: any) => void) | null;
  readonly readyState?: number;
  readonly bufferedAmount?: number;
}

/** A MessagePort, a Worker, the scope of a worker, or `parentPort` of Node's worker_threads. */
export interface PortLike {
  postMessage(data: any): void;
  close?(): void;
}

export interface ChannelOptions {
  /** What the peer may call: plain objects of functions, values and such objects; own properties alone. */
  expose?: object;
  /** Dotted paths of values that the peer may set. */
  settable?: Iterable<string>;
  /** Dotted paths of classes that the peer may make instances of. */
  constructible?: Iterable<string>;
  /** Milliseconds for all calls that have no `timeout` of their own. */
  timeout?: number;
  limits?: Partial<Limits>;
  /** Extensions to offer; all, where left out. */
  features?: readonly Feature[];
  /** false: no hello is said, but the peer's is answered. */
  hello?: boolean;
  /** What begins the ids of this side's calls; "js". */
  idPrefix?: string;
  /** A line that was no message. */
  onNoise?: (line: string) => void;
  /** The failure of an assignment, `api.x = 1`, that nobody else hears of; console.error, where left out. */
  onError?: (error: unknown) => void;
}

export declare class RPCChannel {
  constructor(target: SocketLike | PortLike, options?: ChannelOptions);
  /** Messages of the peer that broke a rule, and lines that were no messages. */
  readonly counted: number;
  readonly noise: number;
  /** Resolves once it is known what the peer has. Never rejects. */
  readonly ready: Promise<void>;
  /** Resolves at the end, with the reason: null where this side closed. Never rejects. */
  readonly closed: Promise<KkrpcError | null>;
  /** The peer has said no hello: it has none of the extensions. */
  get stock(): boolean;
  /** What both sides have. */
  get features(): Set<Feature>;
  /** Numbers of calls, streams and functions, and of frames that wait. */
  get stats(): Record<'incoming' | 'outgoing' | 'own' | 'theirs' | 'waiting' | 'written', number>;
  remote<T = any>(options?: CallOptions): Remote<T>;
  call<T = any>(path: string | string[], args?: unknown[], options?: CallOptions): RemoteCall<T> & AsyncIterable<any>;
  construct<T = any>(path: string | string[], args?: unknown[], options?: CallOptions): RemoteCall<T>;
  get<T = any>(path: string | string[], options?: CallOptions): RemoteCall<T>;
  set(path: string | string[], value: unknown, options?: CallOptions): RemoteCall<true>;
  /** An own function that was passed to the peer can be called by it no more. */
  release(run: Function): void;
  close(): Promise<void>;
}

export interface ConnectOptions extends ChannelOptions {
  /** The class to use: `ws` in a Node without a WebSocket of its own (before 22). */
  WebSocket?: new (url: any, protocols?: any) => SocketLike;
  protocols?: string | string[];
  /** Milliseconds until the connection must be open; 10,000. */
  openMs?: number;
  /** Gives up connecting. */
  signal?: AbortSignal;
}

/** Connects to a WebSocket server; resolves once it is open and the peer's features are known. */
export declare function connect(url: string | URL, options?: ConnectOptions): Promise<RPCChannel>;

/** A channel over a MessagePort, a Worker, or, within a worker, its scope or `parentPort`. */
export declare function fromMessagePort(port: PortLike, options?: ChannelOptions): RPCChannel;
