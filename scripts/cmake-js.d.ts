/**
 * What scripts/build-addon.mjs uses of cmake-js, which ships no types.
 */
export class BuildSystem {
  constructor(options: {
    /** Folder of CMakeLists.txt. */
    directory: string;
    /** The CMake build folder. */
    out: string;
    config: 'Release' | 'Debug';
    parallel: number;
    /** Cache entries, passed as -DNAME=VALUE. */
    cMakeOptions: Record<string, string>;
  });
  configure(): Promise<void>;
  build(): Promise<void>;
}
