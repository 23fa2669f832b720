import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import ts from 'typescript';

export const ROOT = join(import.meta.dirname, '..', '..');

/** One TypeScript file of the repository. */
export interface SourceFile {
  /** Relative to the root, such as `agent/primary/local.ts`. */
  path: string;
  text: string;
  imports: Import[];
}

export interface Import {
  /** A path as above for our own files, else the package's name (`node:fs` for Node's own). */
  target: string;
  own: boolean;
}

export const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** All files of the repository that people wrote, as paths relative to the root. */
export const repositoryFiles = (pattern = '**/*'): string[] =>
  globSync(pattern, { cwd: ROOT, exclude: entry => ['node_modules', '.git', '.cache'].includes(entry.name), withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => relative(ROOT, join(entry.parentPath, entry.name)))
    .sort();

/** Every TypeScript file with what it imports, types and dynamic imports of literals included. */
export const sourceFiles = (): SourceFile[] =>
  repositoryFiles('{agent,controller,shared,test}/**/*.ts').map(path => parse(path, read(path)));

function parse(path: string, text: string): SourceFile {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest);
  const imports: Import[] = [];
  const add = (specifier: ts.Expression | undefined): void => {
    if (specifier && ts.isStringLiteral(specifier)) imports.push(named(path, specifier.text));
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) add(node.moduleSpecifier);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) add(node.arguments[0]);
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal as ts.Expression);
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return { path, text, imports };
}

function named(from: string, specifier: string): Import {
  if (specifier.startsWith('.')) return { target: relative(ROOT, resolve(ROOT, dirname(from), specifier)), own: true };
  const parts = specifier.split('/');
  const target = specifier.startsWith('@') ? parts.slice(0, 2).join('/') : specifier.startsWith('node:') ? specifier : parts[0]!;
  return { target, own: false };
}

/** Cycles among our own files, each as the files on its way. Imports of types count: who reads one file must read them all. */
export function importCycles(files: SourceFile[]): string[][] {
  const byPath = new Map(files.map(file => [file.path, file]));
  const done = new Set<string>();
  const cycles: string[][] = [];
  const walk = (path: string, way: string[]): void => {
    const at = way.indexOf(path);
    if (at >= 0) return void cycles.push([...way.slice(at), path]);
    if (done.has(path)) return;
    for (const { target, own } of byPath.get(path)?.imports ?? []) if (own) walk(target, [...way, path]);
    done.add(path);
  };
  for (const { path } of files) walk(path, []);
  return cycles;
}
