// A sound from the microphone as a WAV file of 16 bits: what browsers record by themselves, few programs can read.
const LONGEST = 60; // seconds

function wave(channels, rate) {
  const length = channels[0].length;
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * length, true);
  for (let i = 0; i < length; i += 1) {
    const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, mean))), true);
  }
  return view.buffer;
}

// Begins to record, without the filters that are meant for talking; `file` comes after `stop()`, or after a minute.
export async function record() {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const recorder = new MediaRecorder(stream), parts = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  const ended = new Promise((resolve) => { recorder.addEventListener("stop", resolve); });
  const stop = () => { if (recorder.state !== "inactive") recorder.stop(); };
  const timer = setTimeout(stop, 1000 * LONGEST);
  recorder.start();
  const file = ended.then(async () => {
    clearTimeout(timer);
    stream.getTracks().forEach((track) => track.stop());
    const context = new AudioContext();
    const sound = await context.decodeAudioData(await new Blob(parts).arrayBuffer());
    context.close();
    const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
    return new File([wave(channels, sound.sampleRate)], "recording.wav", { type: "audio/wav" });
  });
  return { stop, file };
}
