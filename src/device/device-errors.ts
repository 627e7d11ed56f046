/** Errors of the addon as errors of the API. Called by native.ts around what may fail while computing. */
import { DeviceError, GpuError } from '../errors.js';

/** Native errors carry a code; people get a DeviceError or GpuError with the native message. */
export function asDeviceError<T>(call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ERR_GPU') {
      throw new GpuError(cause.message, { cause });
    }
    if (cause instanceof Error && 'code' in cause && !(cause instanceof DeviceError)) {
      throw new DeviceError(`${cause.message} (${String(cause.code)})`, { cause });
    }
    throw cause;
  }
}
