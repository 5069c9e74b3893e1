// The report of `bench scaling` as one HTML page: plots are SVG inside it, nothing is loaded from elsewhere.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "launch/base/text.hpp"
#include "launch/bench/scaling.hpp"

namespace dtrain::launch {

namespace {

constexpr const char* style = R"(
body{font:15px/1.5 system-ui,sans-serif;color:#1c2733;background:#fff;max-width:1120px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:.1em}h2{font-size:1.15em;margin:1.6em 0 .4em}
p.sub{color:#5b6875;margin:.1em 0}code{background:#f1f4f7;padding:.1em .3em;border-radius:3px}
table{border-collapse:collapse;margin:.5em 0;font-variant-numeric:tabular-nums}
th,td{padding:.3em .55em;font-size:14px;text-align:right;border-bottom:1px solid #e1e6eb;white-space:nowrap}
th{color:#5b6875;font-weight:600}td small{color:#7a8794}
.plots{display:grid;grid-template-columns:1fr 1fr;gap:16px}figure{margin:0}figcaption{font-weight:600;margin-bottom:2px}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#5b6875}
@media(max-width:720px){.plots{grid-template-columns:1fr}}
)";

constexpr const char* colours[] = {"#1668b8", "#c2571a"};  // weak, strong
constexpr double width = 480, height = 306, left = 58, right = 14, top = 12, bottom = 62;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

/// A step of 1, 2 or 5 times a power of ten that divides `range` into five at most.
double tick_step(double range) {
  const double raw = std::max(range, 1e-12) / 5, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0})
    if (factor * power >= raw * 0.999) return factor * power;
  return 10 * power;
}

struct Curve {
  std::string name;
  std::vector<Estimate> values;
  std::vector<double> predicted;  // 0: none
};

class Plot {
 public:
  Plot(std::vector<int> ranks, std::vector<Curve> curves, std::function<double(double)> ideal, bool percent)
      : ranks_(std::move(ranks)), curves_(std::move(curves)), ideal_(std::move(ideal)), percent_(percent) {
    for (const Curve& c : curves_)
      for (std::size_t i = 0; i < c.values.size(); ++i)
        most_ = std::max({most_, c.values[i].value, std::min(c.values[i].high, 2 * c.values[i].value),
                          c.predicted.empty() ? 0 : c.predicted[i]});
    if (ideal_)
      for (const int n : ranks_) most_ = std::max(most_, ideal_(n));
    if (most_ <= 0) most_ = 0.01;
    most_ *= 1.05;
  }

  std::string svg() const {
    std::string out = fmt::format(R"(<svg viewBox="0 0 {} {}" role="img">)", width, height);
    out += axes();
    if (ideal_) out += ideal_line();
    for (std::size_t i = 0; i < curves_.size(); ++i) out += curve(curves_[i], colour_of(curves_[i], i));
    out += legend();
    return out + "</svg>";
  }

 private:
  static const char* colour_of(const Curve& c, std::size_t i) {
    return c.name == "weak" ? colours[0] : c.name == "strong" ? colours[1] : colours[i % 2];
  }
  /// Ranks double from step to step, as people choose them.
  double x(double n) const {
    const double low = std::log2(ranks_.front()), high = std::log2(ranks_.back());
    return left + 14 + (std::log2(n) - low) / (high - low) * (width - left - right - 28);
  }
  double y(double v) const { return height - bottom - std::clamp(v / most_, 0.0, 1.0) * (height - top - bottom); }

  std::string axes() const {
    std::string out;
    const double step = tick_step(most_);
    for (int tick = 0; tick * step <= most_; ++tick) {
      const double v = tick * step;
      out += fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="#e1e6eb"/>)", left, y(v),
                         width - right, y(v));
      const std::string label = percent_    ? fmt::format("{:.3g} %", v * 100)
                                : v >= 1000 ? quantity(v)
                                            : fmt::format("{:.3g}", v);
      out += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)", left - 6, y(v) + 4, label);
    }
    for (const int n : ranks_)
      out +=
          fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>)", x(n), height - bottom + 18, n);
    out += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">ranks</text>)", (left + width - right) / 2,
                       height - bottom + 34);
    out += fmt::format(R"(<line x1="{0:.1f}" y1="{1:.1f}" x2="{2:.1f}" y2="{1:.1f}" stroke="#8b97a3"/>)", left, y(0),
                       width - right);
    return out;
  }

  std::string ideal_line() const {
    std::string points;
    for (const int n : ranks_) points += fmt::format("{:.1f},{:.1f} ", x(n), y(ideal_(n)));
    return fmt::format(R"(<polyline points="{}" fill="none" stroke="#8b97a3" stroke-dasharray="5 4"/>)", points);
  }

  std::string curve(const Curve& c, const char* colour) const {
    std::string points, out;
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      const double at = x(ranks_[i]);
      points += fmt::format("{:.1f},{:.1f} ", at, y(c.values[i].value));
      out +=
          fmt::format(R"(<line x1="{0:.1f}" y1="{1:.1f}" x2="{0:.1f}" y2="{2:.1f}" stroke="{3}" stroke-width="1.5"/>)",
                      at, y(c.values[i].low), y(c.values[i].high), colour);
      for (const double end : {c.values[i].low, c.values[i].high})
        out += fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="1.5"/>)",
                           at - 4, y(end), at + 4, y(end), colour);
      out += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="{}"/>)", at, y(c.values[i].value), colour);
      if (!c.predicted.empty() && c.predicted[i] > 0) {
        const double p = y(c.predicted[i]);
        out += fmt::format(R"(<path d="M{:.1f} {:.1f}l5 5l-5 5l-5 -5z" fill="#fff" stroke="{}" stroke-width="1.5"/>)",
                           at, p - 5, colour);
      }
    }
    return fmt::format(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>)", points, colour) + out;
  }

  std::string legend() const {
    std::string out;
    double at = left + 8;
    const auto entry = [&](const std::string& mark, const std::string& name) {
      out += mark + fmt::format(R"(<text x="{:.1f}" y="{:.1f}">{}</text>)", at + 24, height - 6, name);
      at += 34 + 7.2 * static_cast<double>(name.size());
    };
    bool predicted = false;
    for (std::size_t i = 0; i < curves_.size(); ++i) {
      entry(fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="2"/>)", at,
                        height - 10, at + 18, height - 10, colour_of(curves_[i], i)),
            curves_[i].name);
      for (const double p : curves_[i].predicted) predicted = predicted || p > 0;
    }
    if (ideal_)
      entry(fmt::format(
                R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="#8b97a3" stroke-dasharray="5 4"/>)",
                at, height - 10, at + 18, height - 10),
            "ideal");
    if (predicted)
      entry(fmt::format(R"(<path d="M{:.1f} {:.1f}l5 5l-5 5l-5 -5z" fill="#fff" stroke="#5b6875"/>)", at + 9,
                        height - 15),
            "predicted");
    return out;
  }

  std::vector<int> ranks_;
  std::vector<Curve> curves_;
  std::function<double(double)> ideal_;
  bool percent_;
  double most_ = 0;
};

std::string cell(const Estimate& e, double scale, int digits, const char* unit = "") {
  return fmt::format("<td>{:.{}f}{} <small>{:.{}f} to {:.{}f}</small></td>", e.value * scale, digits, unit,
                     e.low * scale, digits, e.high * scale, digits);
}

std::string table(const ScalingSeries& s) {
  const bool predicted =
      std::any_of(s.points.begin(), s.points.end(), [](const auto& p) { return p.predicted_step > 0; });
  std::string out =
      "<table><tr><th>ranks</th><th>global batch</th><th>step, ms</th><th>samples/s</th><th>speed-up</th>"
      "<th>efficiency</th><th>exposed</th>";
  if (predicted) out += "<th>predicted step, ms</th>";
  out += "</tr>\n";
  for (const ScalingPoint& p : s.points) {
    out += fmt::format("<tr><td>{}</td><td>{}</td>", p.ranks, grouped(p.global_batch)) + cell(p.step, 1e3, 2) +
           cell(p.throughput, 1, 0) + cell(p.speedup, 1, 2) + cell(p.efficiency, 100, 1, " %") +
           cell(p.exposed, 100, 1, " %");
    if (predicted)
      out += fmt::format("<td>{:.2f} <small>{:+.1f} %</small></td>", 1e3 * p.predicted_step,
                         100 * (p.predicted_step / p.step.value - 1));
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

}  // namespace

std::string scaling_page(const ScalingResult& r) {
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Scaling of {0}</title>\n"
      "<meta name=\"viewport\" content=\"width=device-width\"><style>{1}</style></head><body>\n<h1>Scaling of "
      "{0}</h1>\n"
      "<p class=\"sub\">{2}</p>\n<p class=\"sub\">means of {3} runs of {4} steps; small numbers and bars are 95 % "
      "confidence intervals</p>\n<p class=\"sub\"><code>{5}</code></p>\n",
      escaped(r.name), style, escaped(r.machine), r.repeats, r.steps, escaped(r.command));
  std::vector<int> ranks;
  for (const ScalingPoint& p : r.series.front().points) ranks.push_back(p.ranks);
  using Get = std::function<Estimate(const ScalingPoint&)>;
  using GetPredicted = std::function<double(const ScalingPoint&)>;
  const auto figure = [&](const std::string& caption, const Get& get, const GetPredicted& predicted,
                          const std::function<double(double)>& ideal, bool percent) {
    std::vector<Curve> curves;
    for (const ScalingSeries& s : r.series) {
      Curve c{s.kind, {}, {}};
      for (const ScalingPoint& p : s.points) {
        c.values.push_back(get(p));
        if (predicted) c.predicted.push_back(predicted(p));
      }
      curves.push_back(std::move(c));
    }
    out += fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", caption,
                       Plot(ranks, std::move(curves), ideal, percent).svg());
  };
  const double fewest = ranks.front(), base = r.series.front().points.front().throughput.value;
  out += "<div class=\"plots\">\n";
  figure(
      "Samples a second", [](const auto& p) { return p.throughput; },
      [](const auto& p) { return p.predicted_step > 0 ? static_cast<double>(p.global_batch) / p.predicted_step : 0.0; },
      [&](double n) { return base * n / fewest; }, false);
  figure(
      "Speed-up", [](const auto& p) { return p.speedup; }, nullptr, [&](double n) { return n / fewest; }, false);
  figure(
      "Efficiency of a rank", [](const auto& p) { return p.efficiency; },
      [](const auto& p) { return p.predicted_efficiency; }, [](double) { return 1.0; }, true);
  figure(
      "Fraction of a step that waits for other ranks' gradients", [](const auto& p) { return p.exposed; }, nullptr,
      nullptr, true);
  out += "</div>\n";
  for (const ScalingSeries& s : r.series)
    out += fmt::format("<h2>{} scaling: {}</h2>\n{}", s.kind == "weak" ? "Weak" : "Strong",
                       s.kind == "weak" ? "the batch grows with the ranks" : "the same batch, shared by more ranks",
                       table(s));
  for (const auto& note : r.notes) out += "<p class=\"sub\">" + escaped(note) + "</p>\n";
  return out + "</body></html>\n";
}

}  // namespace dtrain::launch
