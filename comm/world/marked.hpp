// Groups and communicators that note on the host's board when this rank enters and leaves an exchange: who is behind is
// who has entered fewer.
// They own what they wrap and refer to the board, which outlives them (World's). Same thread rules as what they wrap.
#pragma once

#include <memory>

#include "comm/collective/communicator.hpp"
#include "comm/watch/host_board.hpp"

namespace dtrain::comm {

/// This rank is inside an exchange with the others.
class Exchange {
 public:
  explicit Exchange(HostBoard& board) : board_(board) { board_.enter_exchange(); }
  ~Exchange() { board_.leave_exchange(); }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

 private:
  HostBoard& board_;
};

std::unique_ptr<Group> make_marked(std::unique_ptr<Group>, HostBoard&);
std::unique_ptr<Communicator> make_marked(std::unique_ptr<Communicator>, HostBoard&);

}  // namespace dtrain::comm
