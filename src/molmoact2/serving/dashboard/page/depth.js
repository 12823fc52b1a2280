// The depth map that a policy thought of: its picture where the checkpoint can draw one, else its codes in colours.
import { fresh } from "./charts.js";

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
    const side = Math.round(Math.sqrt(codes.length)), size = Math.min(width, height), cell = size / side;
    pen.translate((width - size) / 2, (height - size) / 2);
    pen.beginPath();
    pen.roundRect(0, 0, size, size, 8);
    pen.clip();
    const corner = (i) => [(i % side) * cell, Math.floor(i / side) * cell];
    if (jpeg && this.picture.complete) pen.drawImage(this.picture, 0, 0, size, size);
    if (!jpeg) {
      codes.forEach((code, i) => {
        pen.fillStyle = `hsl(${(code * GOLDEN_ANGLE) % 360} 38% 58%)`;
        pen.fillRect(...corner(i), Math.ceil(cell), Math.ceil(cell));
      });
    }
    if (changed.every(Boolean)) return; // the first look of an episode: there is nothing to set apart
    for (const [ink, width] of [["#000a", 4], ["#fff", 1.6]]) {
      pen.strokeStyle = ink;
      pen.lineWidth = width;
      changed.forEach((is, i) => {
        const [x, y] = corner(i);
        if (is) pen.strokeRect(x + 2.5, y + 2.5, cell - 5, cell - 5);
      });
    }
  }
}
