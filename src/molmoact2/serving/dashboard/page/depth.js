// The depth map that a policy thought of: its picture where the checkpoint can draw one, else its codes in colours.
import { colour, fresh } from "./charts.js";

const GOLDEN_ANGLE = 137.508;

export class Depth {
  constructor(place, canvas, words) {
    Object.assign(this, { place, canvas, words, thought: null });
    this.picture = new Image();
    this.picture.onload = () => this.draw();
  }

  show(thought) {
    this.thought = thought;
    this.place.hidden = !thought;
    if (!thought) return;
    const changed = thought.changed.filter(Boolean).length, count = thought.codes.length;
    const age = thought.age ? ", from one look before" : "";
    this.words.textContent = `${changed} of ${count} cells said anew${age}`;
    this.canvas.setAttribute("aria-label", `Depth map, ${this.words.textContent}`);
    if (thought.jpeg) this.picture.src = thought.jpeg;
    else this.draw();
  }

  draw() {
    if (!this.thought) return;
    const { pen, width, height } = fresh(this.canvas), { codes, changed, jpeg } = this.thought;
    const side = Math.round(Math.sqrt(codes.length)), [w, h] = [width / side, height / side];
    const cell = (i) => [(i % side) * w, Math.floor(i / side) * h];
    if (jpeg && this.picture.complete) pen.drawImage(this.picture, 0, 0, width, height);
    if (!jpeg) {
      codes.forEach((code, i) => {
        const [x, y] = cell(i);
        pen.fillStyle = `hsl(${(code * GOLDEN_ANGLE) % 360} 38% 58%)`;
        pen.fillRect(x, y, Math.ceil(w), Math.ceil(h));
      });
    }
    pen.strokeStyle = colour("accent");
    pen.lineWidth = 2;
    changed.forEach((is, i) => {
      const [x, y] = cell(i);
      if (is) pen.strokeRect(x + 1.5, y + 1.5, w - 3, h - 3);
    });
  }
}
