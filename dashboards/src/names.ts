// Which metrics an expression names.
//
// PromQL's own words look like names too; what is asked here is only whether a known metric is among the
// words, so that they do no harm.

/** The words of an expression that could be metrics or recorded series; what is in quotes is none. */
export function words(expr: string): Set<string> {
  return new Set(expr.replace(/"[^"]*"/g, '""').match(/[a-zA-Z_:][a-zA-Z0-9_:]*/g) ?? []);
}

/** The series of a histogram, back to its name. */
export function base(series: string): string {
  return series.replace(/_(bucket|sum|count)$/, '');
}

/** What recorded series are computed from. */
export type Recorded = Map<string, string>;

/** All words of the expressions, and of what they take from recordings. */
export function named(exprs: Iterable<string>, recorded: Recorded): Set<string> {
  const all = new Set<string>();
  const waiting = [...exprs];
  for (let expr = waiting.pop(); expr !== undefined; expr = waiting.pop()) {
    for (const word of words(expr)) {
      if (!all.has(word)) {
        all.add(word);
        const from = recorded.get(word);
        if (from !== undefined) {
          waiting.push(from);
        }
      }
    }
  }
  return all;
}
