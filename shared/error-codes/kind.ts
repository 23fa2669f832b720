/** What one code stands for. */
export interface ErrorKind {
  /** HTTP status of the problem document. */
  status: number;
  /** Whether the same request may succeed later with nothing changed but the world. */
  retryable: boolean;
  /** One line: what kind of thing went wrong. */
  title: string;
  /** What the reader should do about it. */
  action: string;
}
