import { describe, expect, it } from 'vitest';
import type { DeviceInfo } from '../../../src/device/device.js';
import { calibrate } from '../../../src/engine/calibrate.js';
import { checkProfile } from '../../../src/schedule/cost-profile.js';

const info = { tpDegree: 2, expertSlots: 4 } as DeviceInfo;

/** A device whose measurements take the time that they report for 8 experts, on a clock of its own. */
function device(gpuUs: (tokens: number) => number, ndpUs: (tokens: number) => number) {
  let nowUs = 0;
  const spend = (timeUs: number) => {
    nowUs += timeUs * 8;
    return timeUs;
  };
  return {
    measureExperts: (onGpu: boolean, tokens: number) => spend(onGpu ? gpuUs(tokens) : ndpUs(tokens)),
    measureTransfer: () => spend(70),
    nowMs: () => nowUs / 1000,
  };
}

describe('calibrate', () => {
  it('measures both sides at rising token counts', () => {
    const fake = device(
      (tokens) => 2 + tokens / 10,
      (tokens) => 4 + tokens / 5,
    );
    const profile = calibrate(fake, info, 512, fake.nowMs);
    checkProfile(profile);
    expect(profile.gpuExpert.map((point) => point.tokens)).toEqual([1, 4, 16, 64, 256]);
    expect(profile.gpuExpert[2]?.timeUs).toBeCloseTo(3.6);
    expect(profile.ndpExpert[0]).toMatchObject({ tpDegree: 2 });
    expect(profile.ndpExpert[0]?.points[4]?.timeUs).toBeCloseTo(55.2);
    expect(profile.transferUs).toBe(70);
  });

  it('stays under 300 ms on a slow machine', () => {
    const fake = device(
      (tokens) => 900 * tokens,
      (tokens) => 2000 * tokens,
    );
    const profile = calibrate(fake, info, 512, fake.nowMs);
    expect(fake.nowMs()).toBeLessThan(300);
    checkProfile(profile);
  });

  it('measures no more tokens than a step may have, and no transfer without slots', () => {
    const fake = device(
      () => 1,
      () => 1,
    );
    const profile = calibrate(fake, { ...info, expertSlots: 0 }, 20, fake.nowMs);
    expect(profile.gpuExpert.map((point) => point.tokens)).toEqual([1, 4, 16]);
    expect(profile.transferUs).toBe(0);
  });

  it('does not believe that more tokens cost less', () => {
    const fake = device(
      (tokens) => 100 / tokens,
      () => 0,
    );
    const profile = calibrate(fake, info, 512, fake.nowMs);
    checkProfile(profile);
    expect(new Set(profile.gpuExpert.map((point) => point.timeUs)).size).toBe(1);
  });
});
