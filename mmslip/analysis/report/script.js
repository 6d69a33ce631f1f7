// Read values out of the curves: the points next to the pointer, below the chart.
for (const chart of document.querySelectorAll('svg[data-curves]')) {
  const { curves } = JSON.parse(chart.dataset.curves);
  const rule = chart.querySelector('.rule');
  const readout = chart.parentElement.querySelector('.readout');
  const nearest = (curve, x) => curve.at.reduce(
    (best, point, place) =>
      Math.abs(point[0] - x) < Math.abs(curve.at[best][0] - x) ? place : best, 0);

  chart.addEventListener('pointermove', (event) => {
    const box = chart.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    const places = curves.map((curve) => nearest(curve, x));
    const distance = (n) => Math.abs(curves[n].at[places[n]][0] - x);
    const closest = places.reduce((best, _, n) => distance(n) < distance(best) ? n : best, 0);
    rule.setAttribute('transform', `translate(${curves[closest].at[places[closest]][0]})`);
    rule.style.visibility = 'visible';
    readout.replaceChildren(...curves.map((curve, n) => {
      const line = document.createElement('span');
      const key = document.createElement('i');
      key.className = `key c${curve.color}`;
      line.append(key, `${curve.values[places[n]]} at ${curve.steps[places[n]]}`);
      line.title = curve.name;
      return line;
    }));
  });
  chart.addEventListener('pointerleave', () => {
    rule.style.visibility = 'hidden';
    readout.replaceChildren();
  });
}
